"""The numbers of several workers become one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from extauthz import figures
from extauthz.board import RECORD, Board, State
from extauthz.figures import Figures, continued, together
from extauthz.readiness import Component, Status
from extauthz.tally import Tally

if TYPE_CHECKING:
    import pytest

ALLOWED = ("allow", "policy.allowed")
DENIED = ("deny", "policy.denied")


def decided(allowed: int, denied: int = 0) -> Figures:
    return {figures.DECISIONS: {ALLOWED: allowed, DENIED: denied}}


def ready() -> Status:
    return Status((Component("policies", ready=True),))


def tally(board: Board, index: int, own: Figures) -> Tally:
    made = Tally(board, index, ready)
    made.count(lambda: own)
    return made


def test_counters_of_all_workers_are_added() -> None:
    """A counter is the sum over the workers, those too that are not there at the moment."""
    told = {0: decided(2, 1), 1: decided(3)}
    assert together(told, serving=[0])[figures.DECISIONS] == {ALLOWED: 5, DENIED: 1}


def test_gauges_are_of_those_who_serve() -> None:
    """The least of the workers that serve is what counts where one that lags behind is a fault."""
    told: dict[int, Figures] = {
        0: {figures.POLICIES_CURRENT: {(): 1}, figures.KEYS_FAILING: {("idp",): 0}},
        1: {figures.POLICIES_CURRENT: {(): 0}, figures.KEYS_FAILING: {("idp",): 1}},
        2: {figures.POLICIES_CURRENT: {(): 0}},
    }
    assert together(told, serving=[0])[figures.POLICIES_CURRENT] == {(): 1}
    assert together(told, serving=[0, 1])[figures.POLICIES_CURRENT] == {(): 0}
    assert together(told, serving=[0, 1])[figures.KEYS_FAILING] == {("idp",): 1}


def test_revisions_are_told_for_each_worker() -> None:
    """Workers that are at different revisions are seen to be."""
    told: dict[int, Figures] = {
        0: {figures.POLICIES: {("a1",): 7}},
        1: {figures.POLICIES: {("b2",): 8}},
    }
    assert together(told, serving=[0, 1])[figures.POLICIES] == {("a1", "1"): 7, ("b2", "2"): 8}


def test_a_worker_goes_on_from_the_one_before_it() -> None:
    """Counters of a process that follows another in the same place go on; its gauges are its own."""
    before: Figures = {**decided(4, 2), figures.ENTRIES: {(): 9}}
    now: Figures = {figures.DECISIONS: {ALLOWED: 1}, figures.ENTRIES: {(): 8}}
    assert continued(before, now) == {figures.DECISIONS: {ALLOWED: 5, DENIED: 2}, figures.ENTRIES: {(): 8}}
    assert continued(before, {}) == decided(4, 2)


def test_what_one_worker_tells_another_reads() -> None:
    """Whoever is asked speaks for all, and for those who have gone and come back."""
    board = Board(2)
    board[0] = board[1] = State.READY
    tally(board, 0, decided(1)).tell()
    tally(board, 1, decided(2)).tell()
    again = tally(board, 1, decided(10))
    again.tell()
    everything = tally(board, 0, decided(100)).everything()
    assert everything[figures.DECISIONS][ALLOWED] == 13
    assert everything[figures.WORKER_STARTS] == {(): 3}
    assert everything[figures.WORKERS][("ready",)] == 2
    assert everything[figures.READY] == {("policies",): 1}
    assert everything[figures.WORKER_START_TIME].keys() == {("1",), ("2",)}


def test_a_worker_that_cannot_tell_its_numbers_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """Numbers that have no room stand still, which is logged; nothing else comes of it."""
    board = Board(1)
    own = decided(1)
    made = tally(board, 0, own)
    made.tell()
    own[figures.KEYS] = {("k" * RECORD,): 1}
    with caplog.at_level(logging.ERROR):
        made.tell()
        own[figures.KEYS] = {("l" * RECORD,): 1}
        made.tell()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "metrics of this worker stand still"
    ]
    assert made.everything()[figures.DECISIONS][ALLOWED] == 1
