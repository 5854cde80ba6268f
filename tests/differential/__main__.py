"""``make differential``: any number of comparisons with the real Cerbos, from a fresh or a given seed."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import click

from tests.differential import cel, schemas
from tests.differential.run import REQUESTS, RESOURCES, Tally, runs
from tests.differential.shrink import shrunk

if TYPE_CHECKING:
    from collections.abc import Iterable

SHRUNK = 3
"""How many differences are reduced to small ones; that takes a minute or two each."""


@click.command()
@click.option("--checks", default=20_000, show_default=True, help="Resources to ask about, at least.")
@click.option("--expressions", default=0, show_default=True, help="Expressions to evaluate, at least.")
@click.option("--attributes", default=0, show_default=True, help="Attributes to hold against schemas.")
@click.option("--seed", type=int, help="The first seed; by default a fresh one.")
def main(checks: int, expressions: int, attributes: int, seed: int | None) -> None:
    """Ask the real Cerbos and ours the same, and show what differs."""
    first = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    click.echo(f"seed {first}")
    sets = -(-checks // (RESOURCES * REQUESTS))
    of_schemas = -(-attributes // (schemas.RESOURCES * schemas.REQUESTS))
    same = [
        _checks(runs(range(first, first + sets))),
        _checks(map(schemas.compared, range(first, first + of_schemas))),
        _expressions(first, expressions),
    ]
    sys.exit(not all(same))


def _expressions(first: int, count: int) -> bool:
    """Compare expressions by themselves; true when nothing is unexplained."""
    found = [cel.compared(seed) for seed in range(first, first - -count // cel.RULES)]
    if not found:
        return True
    unexplained = [one for run in found for one in run.unexplained]
    unlike = sorted(text for run in found for text in run.unlike)
    click.echo(
        f"{sum(run.expressions for run in found)} expressions compared, "
        f"{sum(run.explained for run in found)} answers differ as listed, {len(unexplained)} unexplained; "
        f"{len(unlike)} more are refused by one side alone"
    )
    for text in unlike:
        click.echo(f"  refused by one side: {text}")
    for one in unexplained:
        click.echo(f"  {one.text}\n    ours   {one.ours}\n    Cerbos {one.cerbos}\n    {one.resource}")
    return not unexplained


def _checks(tallies: Iterable[Tally]) -> bool:
    """Compare checks; true when nothing is unexplained."""
    tally = Tally()
    for one in tallies:
        tally.add(one)
        if sys.stdout.isatty():
            click.echo(f"\r{tally.checks} checks, {len(tally.unexplained)} unexplained", nl=False)
    if tally.sets:
        click.echo(f"\n{tally}")
    for case, found in tally.unexplained[:SHRUNK]:
        smaller, difference = shrunk(case, found)
        click.echo(f"\n{smaller}")
        for name in difference.fields:
            click.echo(f"  {name}\n    ours   {getattr(difference.ours, name)}")
            click.echo(f"    Cerbos {getattr(difference.cerbos, name)}")
    return not tally.unexplained


if __name__ == "__main__":
    main()
