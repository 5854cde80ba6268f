"""The commands of ``extauthz ctl``. They are those of ``cerbosctl``, with its names and short names.

Exit codes: 0 well; 1 the server refused, could not be reached, or has not what was asked for; 2 the command
line is wrong.
"""

# ruff: noqa: PLC0415  # a command imports what it needs: `--help` has to answer at once

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from extauthz.ctl.client import Client
    from extauthz.ctl.connection import Connection
    from extauthz.ctl.shown import Row

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

FAILED: Final = 1

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _connection_options(*, environment: bool) -> tuple[Callable[[Any], Any], ...]:
    """Make the options that say how to reach the server.

    They may stand before and behind the name of a command. *environment*: what is not given is looked for in
    the variables of the environment, once, so that an option before the name is not lost to a variable.
    """
    names = ("server", "username", "password")
    named = {name: f"CERBOS_{name.upper()}" if environment else None for name in names}
    return (
        click.option(
            "--server", envvar=named["server"], help="Address of the gRPC port.  [default: localhost:3593]"
        ),
        click.option("--username", envvar=named["username"], help="Of the admin API."),
        click.option(
            "--password", envvar=named["password"], help="Its password; asked for if there is none."
        ),
        click.option("--ca-cert", type=_FILE, help="CA that signed the server's certificate."),
        click.option("--client-cert", type=_FILE, help="Our certificate."),
        click.option("--client-key", type=_FILE, help="Its key."),
        click.option("--insecure", is_flag=True, default=None, help="Do not verify the certificate."),
        click.option("--plaintext", is_flag=True, default=None, help="Talk without TLS."),
        click.option("--timeout", type=click.FloatRange(0.001), help="Seconds for each call.  [default: 60]"),
    )


class Aliased(click.Group):
    """A group whose commands have further, shorter names."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.aliases: dict[str, str] = {}

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Find a command by any of its names."""
        return super().get_command(context, self.aliases.get(name, name))

    def subgroup(self, name: str, words: str) -> Aliased:
        """Add a group of commands; *words* are its help."""
        made = Aliased(name, help=words)
        self.add_command(made)
        return made

    def also(self, command: click.Command, *names: str) -> None:
        """Add *command*, with further names."""
        self.add_command(command)
        self.aliases.update(dict.fromkeys(names, command.name or ""))


def _with(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _in_words(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Say what went wrong and exit, instead of showing a traceback."""

    @functools.wraps(function)
    def called(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        from extauthz.ctl.connection import CtlError

        try:
            return function(*arguments, **options)
        except CtlError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(FAILED)

    return called


def _connected(function: Callable[..., None], *, anonymous: bool = False) -> Callable[..., None]:
    """Give a command the options of the connection, and a client as its first argument.

    *anonymous*: no credentials are needed.
    """

    @functools.wraps(function)
    @_in_words
    def called(**options: Any) -> None:
        given = {name: options.pop(name) for name in CONNECTION_NAMES}
        before: dict[str, Any] = click.get_current_context().find_object(dict) or {}
        merged = {name: before.get(name) if value is None else value for name, value in given.items()}
        with _client(_connection(merged, anonymous=anonymous)) as client:
            function(client, **options)

    decorated: Callable[..., None] = _with(*_connection_options(environment=False))(called)
    return decorated


CONNECTION_NAMES: Final = (
    "server",
    "username",
    "password",
    "ca_cert",
    "client_cert",
    "client_key",
    "insecure",
    "plaintext",
    "timeout",
)


def _connection(given: dict[str, Any], *, anonymous: bool) -> Connection:
    """Fill in what was not given: from ``~/.netrc``, by asking, by default."""
    from extauthz.ctl.connection import DEFAULT_SERVER, Connection, netrc_credentials

    found = {name: value for name, value in given.items() if value is not None}
    if (found.get("client_cert") is None) != (found.get("client_key") is None):
        raise click.UsageError("`--client-cert` and `--client-key` belong together")
    if found.get("plaintext") and (found.get("ca_cert") or found.get("client_cert") or found.get("insecure")):
        raise click.UsageError("`--plaintext` means that there are no certificates")
    if anonymous:
        return Connection(**found)
    if not found.get("username") or not found.get("password"):
        username, password = netrc_credentials(found.get("server", DEFAULT_SERVER))
        if username == found.get("username", username):
            found.setdefault("username", username)
            found.setdefault("password", password)
    if found.get("username") and not found.get("password") and sys.stdin.isatty():
        found["password"] = click.prompt("Password", hide_input=True, err=True)
    if not found.get("username") or not found.get("password"):
        raise click.UsageError(
            "no credentials: give `--username` and `--password`, set CERBOS_USERNAME and CERBOS_PASSWORD, or "
            "put them into `~/.netrc`"
        )
    return Connection(**found)


@contextlib.contextmanager
def _client(connection: Connection) -> Iterator[Client]:
    from extauthz.ctl.client import Client

    with connection.channel() as channel:
        yield Client(channel, connection)


@click.command("ctl", cls=Aliased)
@_with(*_connection_options(environment=True))
@click.pass_context
def ctl(context: click.Context, /, **connection: Any) -> None:
    """Manage policies and schemas of a server over its admin API, as `cerbosctl` does.

    The server may be one of ours or a Cerbos. Credentials come from the options, CERBOS_USERNAME and
    CERBOS_PASSWORD, or ~/.netrc, in this order.
    """
    context.obj = connection


# --- get --------------------------------------------------------------------------------------------------


get = ctl.subgroup("get", "List policies or schemas, or show those with the given ids.")


_FORMAT = click.option(
    "-o", "--output", type=click.Choice(("json", "yaml", "prettyjson")), help="Show whole definitions."
)
_NO_HEADERS = click.option("--no-headers", is_flag=True, help="No headings.")
_FILTERS: Final = (
    click.option("--name-regexp", default="", help="Only names in which this regular expression is found."),
    click.option("--version-regexp", default="", help="Only versions in which it is found."),
    click.option("--scope-regexp", default="", help="Only scopes in which it is found."),
    click.option("--include-disabled", is_flag=True, help="Also policies that are disabled."),
)


def _comma_separated(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(each.strip().lower() for value in values for each in value.split(",") if each.strip())


def _add_get(kind: str, name: str, *names: str) -> None:
    """Add the command that lists and shows one kind of policy."""

    def command(client: Client, **options: Any) -> None:
        _get(client, kind, **options)

    options = (
        click.argument("ids", nargs=-1),
        _FORMAT,
        _NO_HEADERS,
        click.option("--sort-by", type=click.Choice(("policyId", "name", "version")), default="policyId"),
        click.option("--name", "wanted_names", multiple=True, callback=_comma_separated, help="Only these."),
        click.option("--version", "versions", multiple=True, callback=_comma_separated, help="Only these."),
        *_FILTERS,
    )
    words = name.replace("_", " ")
    made = click.command(name, help=f"List {words}, or show those with the given IDS.")
    get.also(made(_with(*options)(_connected(command))), *names)


_add_get("RESOURCE", "resource_policies", "resource_policy", "rp")
_add_get("PRINCIPAL", "principal_policies", "principal_policy", "pp")
_add_get("ROLE", "role_policies", "role_policy", "rlp")
_add_get("DERIVED_ROLES", "derived_roles", "derived_role", "dr")
_add_get("EXPORT_VARIABLES", "export_variables", "ev")
_add_get("EXPORT_CONSTANTS", "export_constants", "ec")


def _get(
    client: Client,
    kind: str,
    *,
    ids: tuple[str, ...],
    output: str | None,
    no_headers: bool,
    sort_by: str,
    wanted_names: frozenset[str],
    versions: frozenset[str],
    name_regexp: str,
    version_regexp: str,
    scope_regexp: str,
    include_disabled: bool,
) -> None:
    from extauthz.ctl import shown
    from extauthz.ctl.connection import CtlError
    from extauthz.pdp.admin_messages import ListPoliciesRequest

    asked = ListPoliciesRequest(include_disabled, name_regexp, scope_regexp, version_regexp)
    policies = client.get_policies(ids or client.list_policies(asked))
    rows = [
        (row, policy)
        for row, policy in ((shown.row(policy), policy) for policy in policies)
        if row.kind == kind
        and (ids or include_disabled or not row.disabled)
        and (not wanted_names or row.name.lower() in wanted_names)
        and (not versions or row.version.lower() in versions)
    ]
    rows.sort(key=lambda each: (_sorted_by(each[0], sort_by), each[0].id))
    if ids or output is not None:
        for _, policy in rows:
            click.echo(shown.written(policy.to_json(), output or "json"))
        missing = sorted(set(ids) - {row.id for row, _ in rows})
        if missing:
            raise CtlError(f"there is no {_words(kind)} {', '.join(f'`{each}`' for each in missing)}")
        return
    headings = shown.HEADINGS[: 4 if kind in shown.VERSIONED else 2]
    for line in shown.table(() if no_headers else headings, (row.cells() for row, _ in rows)):
        click.echo(line)


def _sorted_by(row: Row, column: str) -> str:
    return {"policyId": row.id, "name": row.name, "version": row.version}[column]


def _words(kind: str) -> str:
    words = kind.lower().replace("_", " ")
    return f"{words} policy" if kind in {"RESOURCE", "PRINCIPAL", "ROLE"} else f"set of {words}"


@click.command("schemas")
@click.argument("ids", nargs=-1)
@_FORMAT
@_NO_HEADERS
@_connected
def get_schemas(client: Client, *, ids: tuple[str, ...], output: str | None, no_headers: bool) -> None:
    """List schemas, or show those with the given IDS."""
    import json

    from extauthz.ctl import shown
    from extauthz.ctl.connection import CtlError

    if not ids and output is None:
        for line in shown.table(
            () if no_headers else ("SCHEMA ID",), ((id_,) for id_ in client.list_schemas())
        ):
            click.echo(line)
        return
    for schema in client.get_schemas(ids or client.list_schemas()):
        try:
            document = json.loads(schema.definition)
        except ValueError as error:
            raise CtlError(f"the schema `{schema.id}` is no JSON: {error}") from None
        click.echo(shown.written(document, output or "json"))


get.also(get_schemas, "schema", "s")


# --- put --------------------------------------------------------------------------------------------------


put = ctl.subgroup("put", "Add or replace policies or schemas.")


_PATHS = click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path, allow_dash=False)
)
_RECURSIVE = click.option("-R", "--recursive", is_flag=True, help="Look into directories of directories.")


@click.command("policy")
@_PATHS
@_RECURSIVE
@_connected
def put_policies(client: Client, *, paths: tuple[Path, ...], recursive: bool) -> None:
    """Put the policies in PATHS: files, directories, archives.

    All are read and checked first; nothing is sent when one is wrong. They are sent in an order in which what
    others import comes first.
    """
    from extauthz.ctl.files import read_policies

    policies = read_policies(paths, recursive=recursive)
    _send("policies", policies, client.put_policies)


@click.command("schema")
@_PATHS
@_RECURSIVE
@_connected
def put_schemas(client: Client, *, paths: tuple[Path, ...], recursive: bool) -> None:
    """Put the JSON Schemas in PATHS: files, directories, archives.

    The id of a schema is its path in the directory or archive, or below `_schemas` there.
    """
    from extauthz.ctl.files import read_schemas

    _send("schemas", read_schemas(paths, recursive=recursive), client.put_schemas)


def _send(what: str, items: Sequence[Any], send: Callable[[Any], None]) -> None:
    from extauthz.ctl.connection import CtlError
    from extauthz.ctl.files import in_calls

    if not items:
        raise CtlError(f"there are no {what} in what was named")
    sent = 0
    with _progress(what, len(items)) as advance:
        for some in in_calls(items):
            try:
                send(some)
            except CtlError as error:
                told = f"{sent} of {len(items)} {what} were put, then: " if sent else ""
                raise CtlError(f"{told}{error}") from None
            sent += len(some)
            advance(len(some))
    click.echo(f"Uploaded: {sent}")


@contextlib.contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


put.also(put_policies, "policies", "p")
put.also(put_schemas, "schemas", "s")


# --- delete, disable, enable ------------------------------------------------------------------------------

_IDS = click.argument("ids", nargs=-1, required=True)


delete = ctl.subgroup("delete", "Delete policies or schemas.")


disable = ctl.subgroup("disable", "Take policies out of force, and keep them.")


enable = ctl.subgroup("enable", "Put disabled policies in force again.")


@click.command("policy")
@_IDS
@_connected
def delete_policies(client: Client, *, ids: tuple[str, ...]) -> None:
    """Delete the policies with these IDS."""
    click.echo(f"Number of policies deleted is {client.delete_policies(ids)}")


@click.command("schema")
@_IDS
@_connected
def delete_schemas(client: Client, *, ids: tuple[str, ...]) -> None:
    """Delete the schemas with these IDS."""
    click.echo(f"Number of schemas deleted is {client.delete_schemas(ids)}")


@click.command("policy")
@_IDS
@_connected
def disable_policies(client: Client, *, ids: tuple[str, ...]) -> None:
    """Disable the policies with these IDS."""
    click.echo(f"Number of policies disabled is {client.disable_policies(ids)}")


@click.command("policy")
@_IDS
@_connected
def enable_policies(client: Client, *, ids: tuple[str, ...]) -> None:
    """Enable the policies with these IDS."""
    click.echo(f"Number of policies enabled is {client.enable_policies(ids)}")


delete.also(delete_policies, "policies", "p")
delete.also(delete_schemas, "schemas", "s")
disable.also(disable_policies, "policies", "p")
enable.also(enable_policies, "policies", "p")


# --- inspect ----------------------------------------------------------------------------------------------


inspect = ctl.subgroup("inspect", "Tell what policies refer to.")


@click.command("policies")
@click.argument("ids", nargs=-1)
@_with(*_FILTERS)
@_FORMAT
@_NO_HEADERS
@_connected
def inspect_policies(
    client: Client,
    *,
    ids: tuple[str, ...],
    name_regexp: str,
    version_regexp: str,
    scope_regexp: str,
    include_disabled: bool,
    output: str | None,
    no_headers: bool,
) -> None:
    """Tell the actions, attributes, variables, constants and derived roles of policies."""
    from extauthz.ctl import shown
    from extauthz.pdp import protojson
    from extauthz.pdp.admin_messages import InspectPoliciesRequest

    asked = InspectPoliciesRequest(include_disabled, name_regexp, scope_regexp, version_regexp, ids)
    results = client.inspect_policies(asked)
    if output is None:
        for line in shown.inspected(results, headings=not no_headers):
            click.echo(line)
        return
    for found in sorted(results.values(), key=lambda each: each.policy_id):
        click.echo(shown.written(protojson.write(found), output))


inspect.also(inspect_policies, "policy", "p")


# --- store ------------------------------------------------------------------------------------------------


store = ctl.subgroup("store", "Export or reload the store, forget revisions.")


@click.command("export")
@click.argument("path", type=click.Path(path_type=Path))
@_connected
def export(client: Client, *, path: Path) -> None:
    """Write all policies and schemas to PATH: a directory, or a .zip, .tar, .tgz or .tar.gz archive."""
    from extauthz.ctl.export import exported
    from extauthz.ctl.files import write_tree

    files, policies, schemas = exported(client)
    write_tree(path, files)
    for name in files:
        click.echo(name)
    click.echo(f"Exported {policies} policies and {schemas} schemas to {path}")


@click.command("reload")
@click.option("--wait", is_flag=True, help="Wait until it is done, and say how it went.")
@_connected
def reload(client: Client, *, wait: bool) -> None:
    """Let the server read its store again."""
    client.reload_store(wait=wait)
    click.echo("Successfully reloaded the store" if wait else "Initiated a store reload")


revisions = store.subgroup("revisions", "What policies were before.")


@click.command("purge")
@click.option(
    "--keep-last", type=click.IntRange(0, (1 << 32) - 1), default=0, help="Of each policy.  [default: none]"
)
@_connected
def purge(client: Client, *, keep_last: int) -> None:
    """Forget revisions."""
    click.echo(f"Number of rows affected is {client.purge_revisions(keep_last)}")


store.also(export, "e")
store.also(reload, "r")
revisions.also(purge, "p")


# --- version, password-hash -------------------------------------------------------------------------------


@click.command("version")
@click.option("--client", "client_only", is_flag=True, help="Do not ask the server.")
@functools.partial(_connected, anonymous=True)
def version(client: Client, *, client_only: bool) -> None:
    """Tell our version and that of the server."""
    import importlib.metadata

    click.echo(f"Client version {importlib.metadata.version('extauthz')}")
    if not client_only:
        click.echo(f"Server version {client.server_version()}")


ctl.add_command(version)


@ctl.command("password-hash")
@click.option("--cost", type=click.IntRange(10, 14), default=12, show_default=True, help="2**N rounds.")
@_in_words
def password_hash(*, cost: int) -> None:
    """Make the `passwordHash` for `server.adminAPI.adminCredentials` of a password.

    The password is asked for, or read from standard input.
    """
    from extauthz.admin.credentials import HashError, made_hash
    from extauthz.ctl.connection import CtlError

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        click.echo(made_hash(password, cost))
    except HashError as error:
        raise CtlError(str(error)) from None
