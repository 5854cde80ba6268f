"""What the workers that share a port have counted: each tells its numbers, any one of them reads them all.

A scrape reaches any one of the workers, and its answer has to speak for all of them. A worker that is started
again in the place of another goes on from the numbers of that one, so counters never fall.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING

import orjson

from extauthz import figures
from extauthz.board import State, TooLongError

if TYPE_CHECKING:
    from collections.abc import Callable

    from extauthz.board import Board
    from extauthz.figures import Figures, Labels
    from extauthz.readiness import Readiness

logger = logging.getLogger(__name__)

NOBODY: Figures = {}


class Tally:
    """The numbers of one worker, and of all. Only :meth:`everything` may be called from any thread."""

    def __init__(self, board: Board, index: int, readiness: Readiness) -> None:
        """*readiness* is that of this worker, without the others."""
        self._board = board
        self._index = index
        self._readiness = readiness
        self._own: Callable[[], Figures] = NOBODY.copy
        self._before = _read(board.told(index)) or NOBODY
        self._told = b""
        self._too_long = False
        self._constant: Figures = {
            figures.WORKER_STARTS: {(): 1},
            figures.WORKER_START_TIME: {(): round(time.time(), 3)},
            figures.BUILD: {(version("extauthz"),): 1},
        }

    def count(self, own: Callable[[], Figures]) -> None:
        """From now on let *own* say what this worker has counted since its start."""
        self._own = own

    def tell(self) -> None:
        """Write this worker's numbers for all to read, if they have changed."""
        parts = self._readiness().components
        ready: dict[Labels, float] = {(part.name,): float(part.ready) for part in parts}
        now: Figures = {**self._constant, figures.READY: ready, **self._own()}
        document = _written(figures.continued(self._before, now))
        if document == self._told:
            return
        try:
            self._board.tell(self._index, document)
        except TooLongError as error:
            if not self._too_long:
                logger.error("metrics of this worker stand still: %s", error)
            self._too_long = True
        self._told = document

    def everything(self) -> Figures:
        """Return the numbers of all workers as one."""
        workers = range(self._board.workers)
        states = {worker: self._board[worker] for worker in workers}
        told = {worker: found for worker in workers if (found := _read(self._board.told(worker))) is not None}
        serving = [worker for worker, state in states.items() if state is not State.STARTING]
        joined = figures.together(told, serving)
        count = Counter(states.values())
        joined[figures.WORKERS] = {(state.name.lower(),): count[state] for state in State}
        return joined


def _written(numbers: Figures) -> bytes:
    return orjson.dumps({name: [*map(list, rows.items())] for name, rows in numbers.items()})


def _read(document: bytes) -> Figures | None:
    """Read what :func:`_written` wrote; None when there is nothing."""
    if not document:
        return None
    return {
        name: {tuple(labels): value for labels, value in rows}
        for name, rows in orjson.loads(document).items()
    }
