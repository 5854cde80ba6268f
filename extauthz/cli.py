"""The command line. Each command imports what it needs when it runs, so that ``--help`` answers at once.

Exit codes: 0 well; 1 not well (``serve`` could not start or cut requests off, ``check-config`` found faults,
``ask`` was denied); 2 the command line is wrong (``ask``: or there was an error instead of a decision).
``compile`` has those of ``cerbos compile``; ``explain`` has its own, which its help lists.
"""

# ruff: noqa: PLC0415  # a command imports what it needs: CEL and Envoy's schemas take a second

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from extauthz.bundling.command import bundle
from extauthz.compiling.command import compile_policies
from extauthz.ctl.commands import ctl
from extauthz.diffing.command import diff_policies
from extauthz.explaining import explain_decisions
from extauthz.logs import FORMATS, LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from extauthz.config import Loaded
    from extauthz.transport.address import Address

FAULTS: Final = 1
NO_ANSWER: Final = 2

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(None, "--version", package_name="extauthz", prog_name="extauthz")
def main() -> None:
    """Cerbos-format policies decide: about HTTP requests for Envoy, and over Cerbos's own API."""


# --- serve ------------------------------------------------------------------------------------------------


@main.command()
@click.option(
    "-c",
    "--config",
    "file",
    type=_FILE,
    envvar="EXTAUTHZ_CONFIG",
    show_envvar=True,
    required=True,
    help="Configuration file.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    envvar="EXTAUTHZ_LOG_LEVEL",
    show_default=True,
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="auto",
    envvar="EXTAUTHZ_LOG_FORMAT",
    show_default=True,
    help="auto: text on a terminal, JSON elsewhere.",
)
@click.option(
    "--transport",
    type=click.Choice(("grpcio", "envoy")),
    envvar="EXTAUTHZ_TRANSPORT",
    help="What serves the gRPC port.  [default: `server.transport` of the configuration]",
)
def serve(file: Path, log_level: str, log_format: str, transport: str | None) -> None:
    """Serve decisions until SIGTERM or Ctrl-C; SIGHUP reads the policies again.

    Envoy is answered over gRPC; Cerbos's API is served too when the configuration says so, or has no
    `extAuthz` block. A second signal ends at once.

    Exits with 0 when every request was answered, with 1 when it could not start or had to cut requests off.
    """
    from extauthz import logs, server
    from extauthz.app import built  # before workers are forked: they share the pages of what is imported
    from extauthz.envoy_worker import Program

    logs.configure(level=log_level, style=log_format)
    loaded = _loaded(file)
    _complain(loaded.warnings, prefix="warning: ")
    settings = loaded.config.server
    if transport is not None:
        settings = settings.model_copy(update={"transport": transport})
    hosted = Program(
        environment={"EXTAUTHZ_CONFIG": str(file.absolute())}, log_level=log_level, log_format=log_format
    )
    sys.exit(server.serve(settings, lambda: built(loaded.config), hosted))


def _loaded(file: Path) -> Loaded:
    """Read the configuration, or list its faults and exit."""
    from extauthz.config import ConfigError, load

    try:
        return load(file)
    except ConfigError as error:
        _complain(error.faults)
        click.echo(f"{file}: {_counted(len(error.faults), 'fault')}", err=True)
        sys.exit(FAULTS)


def _complain(faults: Iterable[object], prefix: str = "") -> None:
    for fault in faults:
        click.echo(f"{prefix}{fault}", err=True)


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


# --- check-config, compile, explain -----------------------------------------------------------------------


@main.command("check-config")
@click.argument("file", type=_FILE)
def check_config(file: Path) -> None:
    """Check a configuration file and print its routes.

    Every fault is listed as file:line:column. Policies are not looked at: that is what `compile` is for.
    Exits with 0 when FILE can be used, with 1 when not.
    """
    loaded = _loaded(file)
    from rich.console import Console

    from extauthz.route_list import route_list

    _complain(loaded.warnings, prefix="warning: ")
    routes = loaded.config.ext_authz.routes
    if routes:
        Console().print(route_list(loaded.config.ext_authz))
    served = ", and the PDP API is served" if loaded.config.serves_pdp else ""
    click.echo(f"{file} is good: {_counted(len(routes), 'route')}{served}")


main.add_command(compile_policies)
main.add_command(diff_policies)
main.add_command(explain_decisions)
main.add_command(ctl)
main.add_command(bundle)


# --- envoy-config, envoy ----------------------------------------------------------------------------------


def _address(_: click.Context, __: click.Parameter, text: str) -> Address:
    from extauthz.transport.address import Address, AddressError

    try:
        return Address.parse(text)
    except AddressError as error:
        raise click.BadParameter(str(error)) from None


@main.command("envoy-config")
@click.argument("file", type=_FILE)
@click.option(
    "--transport",
    type=click.Choice(("grpcio", "envoy", "in-gateway")),
    help="in-gateway: the gateway holds extauthz itself.  [default: `server.transport` of FILE]",
)
@click.option(
    "--listen", callback=_address, default="127.0.0.1:10000", show_default=True, help="Of the gateway."
)
@click.option(
    "--service",
    callback=_address,
    default="127.0.0.1:8080",
    show_default=True,
    help="The service to protect.",
)
@click.option("--ca-cert", help="With TLS: CA that signed extauthz's certificate, a path for Envoy.")
@click.option("--cert", help="With TLS: the gateway's certificate, a path for Envoy.")
@click.option("--key", help="Its key.")
@click.option("--server-name", default="extauthz", show_default=True, help="Name in extauthz's certificate.")
def envoy_config(
    *,
    file: Path,
    transport: str | None,
    listen: Address,
    service: Address,
    ca_cert: str | None,
    cert: str | None,
    key: str | None,
    server_name: str,
) -> None:
    """Print a configuration for an Envoy that asks the extauthz of FILE about every request.

    Where extauthz listens on a unix socket, the gateway calls that.
    Exits with 1 when FILE cannot be used, or not with that transport.
    """
    from extauthz.gateway import Gateway, GatewayError, Tls, configuration
    from extauthz.transport.envoy import MissingError

    if (cert is None) != (key is None):
        raise click.UsageError("`--cert` and `--key` belong together")
    settings = _loaded(file).config.server
    tls = None if ca_cert is None else Tls(ca_cert, server_name, cert, key)
    try:
        text = configuration(settings, transport or settings.transport, Gateway(listen, service, tls))
    except (GatewayError, MissingError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(FAULTS)
    click.echo(text, nl=False)


@main.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def envoy(arguments: tuple[str, ...]) -> None:
    """Become the Envoy of the extra `envoy`, with what it needs to hold extauthz (`in-gateway`).

    All arguments are Envoy's. EXTAUTHZ_CONFIG has to name the configuration file of extauthz.
    """
    import os

    from extauthz.transport.envoy import MissingError, binary, environment

    try:
        os.execve(binary(), ["envoy", *arguments], {**os.environ, **environment()})  # noqa: S606  # no shell
    except MissingError as error:
        click.echo(f"error: {error}", err=True)
    except OSError as error:
        click.echo(f"error: Envoy cannot be run on this machine: {error.strerror}", err=True)
    sys.exit(FAULTS)


# --- repl -------------------------------------------------------------------------------------------------


@main.command()
@click.argument("policies", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--history",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where inputs are kept.  [default: in the XDG state folder]",
)
def repl(policies: tuple[Path, ...], history: Path | None) -> None:
    """Evaluate expressions, and try out rules of POLICIES.

    Reads from a terminal or from a pipe; an input from a pipe that cannot be used makes the exit code 1.
    """
    from extauthz.repl import run

    sys.exit(run(policies, history))


# --- ask --------------------------------------------------------------------------------------------------


def _pairs(separator: str, form: str) -> Callable[..., list[tuple[str, str]]]:
    """Make what splits the values of a repeatable option."""

    def split(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[tuple[str, str]]:
        pairs = [text.partition(separator) for text in texts]
        for text, (name, found, _value) in zip(texts, pairs, strict=True):
            if not found or not name.strip():
                raise click.BadParameter(f"`{text}` is not of the form `{form}`")
        return [(name.strip(), value.strip()) for name, _found, value in pairs]

    return split


def _content(_: click.Context, __: click.Parameter, text: str | None) -> bytes:
    """Take text as it is, or with a leading @ the content of a file."""
    if text is None or not text.startswith("@"):
        return (text or "").encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"cannot read `{text[1:]}`: {error.strerror}") from None


def _pem(_: click.Context, __: click.Parameter, file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()


@main.command()
@click.argument("url")
@click.option("-X", "--method", help="HTTP method.  [default: GET, or POST with a body]")
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    callback=_pairs(":", "name: value"),
    help="`name: value`, repeatable.",
)
@click.option("--token", callback=_content, help="Bearer token, or @FILE that holds it.")
@click.option("--body", callback=_content, help="Body of the request, or @FILE.")
@click.option("--principal", default="", help="Identity in the client's certificate, such as a SPIFFE id.")
@click.option("--source", default="127.0.0.1", show_default=True, help="IP address of the client.")
@click.option(
    "--context",
    multiple=True,
    callback=_pairs("=", "key=value"),
    help="`key=value` of context_extensions, repeatable.",
)
@click.option(
    "-a",
    "--address",
    default="127.0.0.1:3593",
    envvar="EXTAUTHZ_ADDRESS",
    show_default=True,
    help="Of the server.",
)
@click.option("--tls", is_flag=True, help="Talk TLS; the options below imply it.")
@click.option("--ca-cert", type=_FILE, callback=_pem, help="CA that signed the server's certificate.")
@click.option("--cert", type=_FILE, callback=_pem, help="Our certificate.")
@click.option("--key", type=_FILE, callback=_pem, help="Its key.")
@click.option("--server-name", default="", help="Name in the server's certificate.")
@click.option("--timeout", type=click.FloatRange(0.001), default=5.0, show_default=True, help="Seconds.")
def ask(
    *,
    url: str,
    method: str | None,
    headers: list[tuple[str, str]],
    token: bytes,
    body: bytes,
    principal: str,
    source: str,
    context: list[tuple[str, str]],
    address: str,
    tls: bool,
    ca_cert: bytes | None,
    cert: bytes | None,
    key: bytes | None,
    server_name: str,
    timeout: float,
) -> None:
    """Ask a server about a request to URL, as Envoy would.

    Exits with 0 when the request is allowed, with 1 when it is denied, with 2 on an error.
    """
    if (cert is None) != (key is None):
        raise click.UsageError("`--cert` and `--key` belong together")
    from rich.console import Console

    from extauthz.ask import Question, QuestionError, ServerError, Tls, check_request, send, show

    bearer = [("authorization", f"Bearer {token.decode().strip()}")] if token else []
    verb = method or ("POST" if body else "GET")
    question = Question(url, verb.upper(), [*headers, *bearer], body, principal, source, dict(context))
    with_tls = tls or any((ca_cert, cert, server_name))
    try:
        answer, seconds = send(
            check_request(question),
            address,
            tls=Tls(ca_cert, cert, key, server_name) if with_tls else None,
            timeout=timeout,
        )
        sys.exit(show(answer, seconds, Console()).value)
    except QuestionError as error:
        raise click.UsageError(str(error)) from None
    except ServerError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(NO_ANSWER)
