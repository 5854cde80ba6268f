"""The records that workers share: whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest

from extauthz.board import _HEADING, RECORD, Board, TooLongError
from tests.extauthz.processes import ROOT, waited


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


WRITER = """
import sys, time
from extauthz.board import Board

board, number, until = Board(1, int(sys.argv[1])), int(sys.argv[2]), time.monotonic() + 60
while time.monotonic() < until:
    number += 1
    board.tell(0, b"%d " % number * (1 + number % 977))
"""
"""Writes records that say nothing but their number, until it is killed."""


def test_a_writer_may_be_killed_at_any_time() -> None:
    """However often a process is killed while it writes, a whole record is there, and never an older one."""
    board = Board(1)
    last = 0
    for _ in range(10):
        writing = subprocess.Popen(  # noqa: S603  # our own script
            [sys.executable, "-c", WRITER, str(board.file), str(last)], pass_fds=(board.file,), cwd=ROOT
        )
        try:
            last = waited(partial(_later_than, board, last))
            for _ in range(200):  # reading while it is written
                now = _number(board)
                assert now >= last
                last = now
        finally:
            writing.kill()
            writing.wait(10)
        assert _number(board) >= last
        last = _number(board)


def _later_than(board: Board, number: int) -> int:
    """Return the number of the record if it is a later one, else 0."""
    now = _number(board)
    return now if now > number else 0


def _number(board: Board) -> int:
    """Return what a record says, after a look that it says nothing else."""
    words = board.told(0).split()
    assert len(set(words)) <= 1
    return int(words[0]) if words else 0
