"""What the processes that share a port know of each other."""

from __future__ import annotations

from extauthz.board import Board, State
from extauthz.readiness import Component, Status
from extauthz.supervisor import LONGEST_DELAY, delay


def test_delays_grow_to_a_limit() -> None:
    """After each crash in a row a worker waits twice as long, up to half a minute."""
    assert [delay(crashes) for crashes in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert delay(1_000_000) == LONGEST_DELAY


def test_a_worker_alone_has_no_others() -> None:
    """With one worker there is nothing to say about others."""
    assert Board(1).others(0) == ()


def test_the_others_are_ready_when_each_is() -> None:
    """The others count as ready when each of them is, whatever this worker is; else each has its reason."""
    board = Board(3)
    board[1], board[2] = State.READY, State.WAITING
    assert board.others(0) == (Component("other workers", ready=False, detail="worker 3 of 3 is not ready"),)
    board[2] = State.READY
    assert board.others(0) == (Component("other workers", ready=True),)
    assert board.others(1) == (Component("other workers", ready=False, detail="worker 1 of 3 is starting"),)


def test_status_is_ready_when_all_parts_are() -> None:
    """A status is ready when every part is; its document leaves empty details out."""
    good, bad = Component("a", ready=True), Component("b", ready=False, detail="why")
    assert Status().ready
    assert Status((good,)).ready
    assert not Status((good, bad)).ready
    assert Status((good, bad)).document() == {
        "ready": False,
        "components": [{"name": "a", "ready": True}, {"name": "b", "ready": False, "detail": "why"}],
    }
