"""The command line of ``extauthz bundle``.

Exit codes are those of ``extauthz compile``: 0: all is well; 3: policies do not compile; 4: tests failed or
were in error; 1: something cannot be read, written, reached or trusted; 2: the command line is wrong.
"""

# ruff: noqa: PLC0415  # what takes long to import is imported when the command runs

from __future__ import annotations

import os
import sys
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from extauthz.compiling.colours import coloured, printable
from extauthz.compiling.command import NOT_COMPILED, TESTS_FAILED, Shown, complain

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.storage.bundle.format import Manifest
    from extauthz.compiling.stages import Compiled

NOT_WELL: Final = 1

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, path_type=Path)


@click.group("bundle")
def bundle() -> None:
    """Make, sign, check and publish bundles of policies.

    A bundle is one file with the policies of a directory, their schemas, and a signed list of them. The
    storage driver `bundle` follows one on a web server, in an OCI registry or in a bucket.
    """


def _well_worded(command: Callable[..., None]) -> Callable[..., None]:
    """Say what a person can mend in one line, and exit with 1."""

    @wraps(command)
    def wrapped(**options: Any) -> None:
        from engine.storage import StoreError

        try:
            command(**options)
        except StoreError as error:
            complain(str(error))
            sys.exit(NOT_WELL)

    return wrapped


# --- keygen -----------------------------------------------------------------------------------------------


@bundle.command()
@click.option(
    "-o", "--output", "prefix", type=_NEW, required=True, help="Write OUTPUT.pem and OUTPUT.pub.pem."
)
@_well_worded
def keygen(*, prefix: Path) -> None:
    """Make a pair of Ed25519 keys.

    The private key is encrypted when EXTAUTHZ_KEY_PASSWORD holds a password. Keys of `openssl genpkey
    -algorithm ed25519` can be used just as well.
    """
    from engine.storage.bundle.keys import key_id, public_text
    from extauthz.bundling.building import PASSWORD_VARIABLE, write_new_keys

    public, private_file, public_file = write_new_keys(prefix, os.environ.get(PASSWORD_VARIABLE, ""))
    click.echo(f"key {key_id(public)}")
    click.echo(f"  {private_file}: sign with it, and keep it secret")
    click.echo(f"  {public_file}: for `publicKeys` of the driver, or in one line:")
    click.echo(f"  publicKeys: [{{data: {public_text(public)}}}]")


# --- build ------------------------------------------------------------------------------------------------


@bundle.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("-o", "--output", type=_NEW, required=True, help="The bundle to write.")
@click.option(
    "--key",
    "key_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    required=True,
    help="Private key, PEM. Repeatable, for a time of two keys.",
)
@click.option("--name", required=True, help="What it is a bundle of: followers take no other name.")
@click.option("--version", default="", help="What people call it, such as a tag or a commit.")
@click.option(
    "--sequence",
    type=click.IntRange(min=1),
    help="Higher than that of the bundle before.  [default: the time in seconds]",
)
@click.option("--skip-tests", is_flag=True, help="Sign what was not tested.")
@click.option("--ignore-schemas", is_flag=True, help="Compile and test without the schemas of attributes.")
@_well_worded
def build(
    *,
    directory: Path,
    output: Path,
    key_files: tuple[Path, ...],
    name: str,
    version: str,
    sequence: int | None,
    skip_tests: bool,
    ignore_schemas: bool,
) -> None:
    """Compile the policies in DIRECTORY, run their tests, and sign them.

    Nothing is written unless all is well. The bundle holds what the service reads: policies and schemas,
    without tests. The same files, keys, name, version, sequence and time make the same bytes; the time is
    that of SOURCE_DATE_EPOCH where it is set. EXTAUTHZ_KEY_PASSWORD opens encrypted keys.
    """
    from engine.storage.bundle.format import write_bundle
    from extauthz.bundling.building import PASSWORD_VARIABLE, moment, signing_keys
    from extauthz.compiling.stages import Request

    keys = signing_keys(key_files, os.environ.get(PASSWORD_VARIABLE, ""))
    try:
        created = moment(os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    compiled = _good(Request(directory, ignore_schemas=ignore_schemas, skip_tests=skip_tests))
    snapshot = compiled.snapshot
    data = write_bundle(
        {**snapshot.files, **snapshot.schemas},
        keys,
        name=name,
        sequence=int(created.timestamp()) if sequence is None else sequence,
        created=created,
        version=version,
    )
    _write(output, data)
    _tell(data)


def _good(request: Any) -> Compiled:
    """Return policies that compile and whose tests pass, or show why they do not and exit."""
    from extauthz.compiling.stages import CompileError, compile_directory

    shown = Shown("tree", "tree", colours=coloured("auto", refused=False), verbose=False)
    try:
        compiled = compile_directory(request)
    except CompileError as error:
        shown.problems(error.problems)
        complain(f"{error}: there is no bundle")
        sys.exit(NOT_COMPILED)
    for warning in compiled.warnings:
        click.echo(f"warning: {printable(str(warning))}", err=True)
    if not request.skip_tests:
        _test(compiled, shown)
    return compiled


def _test(compiled: Compiled, shown: Shown) -> None:
    """Run the tests; exit when they do not pass."""
    from extauthz.compiling.progress import progress_display

    try:
        files = compiled.test_files()
    except OSError as error:
        complain(str(error))
        sys.exit(NOT_WELL)
    with progress_display() as progress:
        results = compiled.run_tests(files, progress)
    if not results.suites:
        click.echo("warning: there are no tests", err=True)
        return
    shown.results(results)
    if not results.ok:
        complain("tests failed: there is no bundle")
        sys.exit(TESTS_FAILED)


def _write(output: Path, data: bytes) -> None:
    from engine.storage import StoreError
    from engine.storage.atomic import write_atomically

    try:
        write_atomically(output, data, mode=0o644)
    except OSError as error:
        raise StoreError(f"cannot write `{output}`: {error.strerror}") from error


# --- verify, inspect --------------------------------------------------------------------------------------


@bundle.command()
@click.argument("file", type=_FILE)
@click.option(
    "--public-key",
    "key_files",
    type=_FILE,
    multiple=True,
    required=True,
    help="Public key, PEM. Repeatable: one good signature is enough.",
)
@click.option("--name", default="", help="The name that it must have.")
@_well_worded
def verify(*, file: Path, key_files: tuple[Path, ...], name: str) -> None:
    """Check the signature of a bundle, and all that is in it, as the driver does."""
    from engine.storage.bundle.format import open_bundle
    from engine.storage.bundle.keys import by_id
    from extauthz.bundling.building import read, verifying_keys

    opened = open_bundle(read(file), by_id(verifying_keys(key_files)), name)
    click.echo(f"{file} is good: {opened.manifest.revision}, signed by {', '.join(opened.signed_by)}")


@bundle.command()
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as it stands in the bundle.")
@_well_worded
def inspect(*, file: Path, as_json: bool) -> None:
    """Show what a bundle says of itself. Nothing is verified."""
    from engine.storage.bundle.format import unverified_manifest
    from extauthz.bundling.building import read

    data = read(file)
    if as_json:
        click.echo(unverified_manifest(data).document(), nl=False)
        return
    _tell(data)
    for entry in unverified_manifest(data).entries:
        click.echo(f"  {entry.sha256[:12]} {entry.size:>9} {printable(entry.path)}")


def _tell(data: bytes) -> None:
    """Show the head of a bundle."""
    from engine.storage.bundle.format import TIME_FORMAT, key_ids, unverified_manifest

    manifest = unverified_manifest(data)
    files = len(manifest.entries)
    click.echo(f"{manifest.revision}, made {manifest.created.strftime(TIME_FORMAT)}")
    click.echo(f"{files} {'file' if files == 1 else 'files'}, {len(data)} bytes")
    click.echo(f"signed by {', '.join(key_ids(data))}")


# --- push -------------------------------------------------------------------------------------------------


@bundle.command()
@click.argument("file", type=_FILE)
@click.argument("url")
@click.option("--username", default="", envvar="EXTAUTHZ_REGISTRY_USERNAME", show_envvar=True)
@click.option(
    "--ca-cert", default="", help="CA certificates that the registry's is signed with, besides the system's."
)
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds.")
@_well_worded
def push(*, file: Path, url: str, username: str, ca_cert: str, timeout: float) -> None:
    """Publish a bundle in an OCI registry, at a URL like oci://registry.example.com/team/policies:main.

    The password or token comes from EXTAUTHZ_REGISTRY_PASSWORD.
    """
    from engine.storage.bundle.format import MAX_BYTES, unverified_manifest
    from engine.storage.bundle.oci import Registry
    from engine.storage.bundle.sources import Settings
    from engine.storage.web import Access
    from extauthz.bundling.building import read

    data = read(file)
    manifest = unverified_manifest(data)
    access = Access(username, os.environ.get("EXTAUTHZ_REGISTRY_PASSWORD", ""))
    registry = Registry(Settings(url, timeout, timeout, MAX_BYTES, access, ca_cert), push=True)
    digest = registry.push(data, _annotations(manifest))
    where = registry.reference
    click.echo(f"{manifest.revision} is at {where.host}/{where.repository}:{where.reference} ({digest})")


def _annotations(manifest: Manifest) -> dict[str, str]:
    """Say in the registry's own words what it is (OCI image specification, annotations)."""
    from engine.storage.bundle.format import TIME_FORMAT

    return {
        "org.opencontainers.image.created": manifest.created.strftime(TIME_FORMAT),
        "org.opencontainers.image.title": manifest.name,
        "org.opencontainers.image.version": manifest.version or str(manifest.sequence),
    }
