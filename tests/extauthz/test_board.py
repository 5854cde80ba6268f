"""The records that workers share: whole or not at all."""

from __future__ import annotations

import os
import signal
import time
from typing import NoReturn

import pytest

from extauthz.board import _HEADING, RECORD, Board, TooLongError
from tests.extauthz.processes import waited


def test_a_record_is_read_by_whoever_has_the_descriptor() -> None:
    """A board made anew from the descriptor shows what was written on the first, and the other way."""
    board = Board(2)
    other = Board(2, board.file)
    board.tell(1, b"first")
    board.tell(1, b"second")
    assert (other.told(0), other.told(1)) == (b"", b"second")
    other.tell(0, b"mine")
    assert board.told(0) == b"mine"
    assert board[0] == board[1] == 0


def test_a_record_that_is_half_written_is_not_read() -> None:
    """Of a record whose text or heading is not whole nothing is read: the one before it counts."""
    board = Board(1)
    board.tell(0, b"one")
    board.tell(0, b"two")
    start = board._place(0, 2)
    for place in (start, start + 8, start + 12, start + _HEADING.size):
        kept = board._memory[place]
        board._memory[place] = kept ^ 0xFF
        assert board.told(0) == b"one"
        board._memory[place] = kept
    assert board.told(0) == b"two"


def test_what_has_no_room_is_refused() -> None:
    """A text that is too long changes nothing; the longest one does not touch the neighbour's."""
    board = Board(2)
    board.tell(0, b"a")
    board.tell(1, b"b")
    with pytest.raises(TooLongError, match="there is room for"):
        board.tell(0, bytes(RECORD))
    assert board.told(0) == b"a"
    for _ in range(2):
        board.tell(0, b"x" * (RECORD - _HEADING.size))
    assert (len(board.told(0)), board.told(1)) == (RECORD - _HEADING.size, b"b")


def _write_for_ever(board: Board, written: int) -> NoReturn:
    number = written
    while True:
        number += 1
        board.tell(0, b"%d " % number * (1 + number % 977))


def test_a_writer_may_be_killed_at_any_time() -> None:
    """However often a process is killed while it writes, a whole record is there, and never an older one."""
    board = Board(1)
    last = 0
    for _ in range(20):
        child = os.fork()
        if child == 0:
            _write_for_ever(board, last)
        try:
            waited(lambda seen=last: (board.told(0) or b"0 ").split()[0] > b"" and _number(board) > seen)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            until = time.monotonic() + 0.01
            while time.monotonic() < until:  # reading while it is written
                now = _number(board)
                assert now >= last
                last = now
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert _number(board) >= last
        last = _number(board)


def _number(board: Board) -> int:
    """Return what a record says, after a look that it says nothing else."""
    words = board.told(0).split()
    assert len(set(words)) <= 1
    return int(words[0]) if words else 0
