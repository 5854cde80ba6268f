"""Run the comparison: tables for people, JSON for programs, a page with charts for a README."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console

from tests.bench import h2load, processes
from tests.bench.peers import machine
from tests.bench.peers.comparison import chosen, compare
from tests.bench.peers.extent import FULL, QUICK, seconds
from tests.bench.peers.report import Report, markdown, tables
from tests.bench.peers.sides import FAULTS

if TYPE_CHECKING:
    from types import FrameType

PAGE = 140
"""Characters across, where the output is no terminal."""
ENDING = (signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--quick", is_flag=True, help="A few minutes: fewer and shorter rounds, fewer policies.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures to this file.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-report"),
    show_default=True,
    help="Write report.md and its charts into this directory.",
)
@click.option("--only", multiple=True, help="Compare sides whose name contains this; may be repeated.")
def main(*, quick: bool, path: Path | None, output: Path, only: tuple[str, ...]) -> None:
    """Compare extauthz with its peers, side by side on this machine."""
    if not h2load.available():
        raise click.ClickException("h2load is not installed (Debian: nghttp2-client)")
    sides, missing = chosen(only)
    if not sides and not missing:
        raise click.UsageError(f"no side has a name with {' or '.join(only)} in it")
    for number in ENDING:
        signal.signal(number, _leave)  # or the servers would stay
    processes.compile_modules()
    console = Console()
    if not console.is_terminal:
        console.width = PAGE
    words = sys.argv[1:]
    report = Report(
        command=" ".join(["make bench-peers", *([f'ARGS="{" ".join(words)}"'] if words else [])]),
        method="",
        machine=machine.described(),
        missing=missing,
    )
    began = time.monotonic()

    def save() -> None:
        report.seconds = time.monotonic() - began
        _save(report, output, path)

    save()  # now, not after many minutes, it turns out whether that can be written
    extent = QUICK if quick else FULL
    minutes = math.ceil(seconds(extent, sides) / 60)
    console.print(f"{_counted(len(sides), 'side')}: about {_counted(minutes, 'minute')}")
    console.print(f"what is measured stands in {output / 'report.md'} as it comes")
    try:
        with console.status("starting") as status:
            compare(report, extent, sides, status.update, save)
    except FAULTS as error:
        raise click.ClickException(str(error)) from error
    finally:
        save()
        _tell(report, console, output)
    if report.failed:
        raise click.ClickException(f"failed: {', '.join(report.failed)}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _tell(report: Report, console: Console, output: Path) -> None:
    """Print what was measured, and write the page with charts; of a broken-off run, what there is."""
    for table in tables(report):
        if table.rows:
            console.print(table.rich())
    for side, why in report.missing.items():
        console.print(f"not measured: {side}: {why}", markup=False)
    for side, why in report.failed.items():
        console.print(f"failed: {side}: {why}", markup=False)
    write(report, output)
    console.print(f"{output / 'report.md'} has the tables and charts")


def _save(report: Report, output: Path, path: Path | None) -> None:
    """Write what there is, the page without charts."""
    output.mkdir(parents=True, exist_ok=True)
    _replace(output / "report.md", markdown(report, ()))
    if path is not None:
        _replace(path, json.dumps(report.document(), indent=2) + "\n")


def _replace(file: Path, text: str) -> None:
    """Write at once, so that an end in the middle does not cost what stood there before."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.replace(file)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)  # the servers are being ended
    raise SystemExit(128 + _number)


def write(report: Report, output: Path) -> None:
    """Write the page and its charts."""
    from tests.bench.peers import charts  # noqa: PLC0415 # matplotlib takes a second to load

    output.mkdir(parents=True, exist_ok=True)
    _replace(output / "report.md", markdown(report, charts.draw(report, output)))


if __name__ == "__main__":
    main()
