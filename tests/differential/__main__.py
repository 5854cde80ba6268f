"""``make differential``: any number of comparisons with the real Cerbos, from a fresh or a given seed."""

from __future__ import annotations

import random
import sys

import click

from tests.differential.run import REQUESTS, RESOURCES, Tally, runs
from tests.differential.shrink import shrunk

SHRUNK = 3
"""How many differences are reduced to small ones; that takes a minute or two each."""


@click.command()
@click.option("--checks", default=20_000, show_default=True, help="Resources to ask about, at least.")
@click.option("--seed", type=int, help="The first seed; by default a fresh one.")
def main(checks: int, seed: int | None) -> None:
    """Ask the real Cerbos and ours the same, and show what differs."""
    first = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    sets = -(-checks // (RESOURCES * REQUESTS))
    click.echo(f"seed {first}, {sets} sets of policies")
    tally = Tally()
    for one in runs(range(first, first + sets)):
        tally.add(one)
        if sys.stdout.isatty():
            click.echo(f"\r{tally.checks} checks, {len(tally.unexplained)} unexplained", nl=False)
    click.echo(f"\n{tally}")
    for case, found in tally.unexplained[:SHRUNK]:
        smaller, difference = shrunk(case, found)
        click.echo(f"\n{smaller}")
        for name in difference.fields:
            click.echo(f"  {name}\n    ours   {getattr(difference.ours, name)}")
            click.echo(f"    Cerbos {getattr(difference.cerbos, name)}")
    sys.exit(bool(tally.unexplained))


if __name__ == "__main__":
    main()
