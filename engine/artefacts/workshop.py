"""Where many files are read and compiled, with all the help there is: what was kept, other processes.

For a handful of files there is none, it would take longer than they do. For many, what is kept is looked up,
the rest is made by several processes at once, and what was made is kept. Whatever goes wrong with that, the
files are read and compiled here and now.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from engine.artefacts.bench import Bench
from engine.artefacts.cache import FEW, Cache, CacheError
from engine.artefacts.crew import MOST, make_together, processors
from engine.artefacts.edition import edition
from engine.load import load_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine import policy as p
    from engine.artefacts.cache import CacheSettings
    from engine.cel import Environment, Expression
    from engine.rules import Settings

logger = logging.getLogger(__name__)

MANY = 16
"""From so many new files on, what is kept is looked at: fewer are read in less time than that takes."""

VERY_MANY = 400
"""From so many files on that nothing is known of, other processes help: they take half a second to start."""


class Workshop:
    """Reads the files of one loader."""

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        cache: CacheSettings | None = None,
        processes: int | None = None,
    ) -> None:
        """Make one; *processes* work at the same time, by default as many as there are processors."""
        self._settings = settings
        self._environment = environment
        self._cache = cache
        self._processes = min(processors(), MOST) if processes is None else processes
        self._bench: Bench | None = None

    def policy(self, content: bytes, file: str) -> p.Policy | None:
        """Read the policy of a file.

        Raises:
            PolicyError: with every fault of the file.

        """
        return load_policy(content, file) if self._bench is None else self._bench.policy(content, file)

    @contextlib.contextmanager
    def at_work(self, files: Mapping[str, bytes]) -> Iterator[Bench | None]:
        """Have help inside, where the new *files* are read and compiled; gives where that happens, if so."""
        known = edition(self._settings) if self._helps(len(files)) else None
        if known is None:
            yield None
            return
        cache = None if self._cache is None else Cache(self._cache, known)
        self._bench = self._environment.kept = bench = Bench(known, keeps=cache is not None)
        try:
            with contextlib.ExitStack() as until_kept:
                held = self._prepared(bench, cache, files, until_kept)
                yield bench
                del held
                if cache is not None:
                    _keep(bench, cache)
        finally:
            self._bench = self._environment.kept = None

    def _helps(self, files: int) -> bool:
        if self._cache is not None:
            return files >= MANY
        return files >= VERY_MANY and self._processes > 1

    def _prepared(
        self, bench: Bench, cache: Cache | None, files: Mapping[str, bytes], until_kept: contextlib.ExitStack
    ) -> list[Expression]:
        """Get what is kept of *files*, and have the rest made if it is much; returns what has to be held."""
        unknown = files
        if cache is not None:
            unknown = _unknown(bench, cache, files)
            if len(unknown) >= VERY_MANY and _waited(cache, until_kept):
                unknown = _unknown(bench, cache, files)
        helpers = self._processes - 1
        if len(unknown) < VERY_MANY or helpers < 1:
            return []
        return make_together(bench, self._settings, self._environment, unknown, helpers)


def _unknown(bench: Bench, cache: Cache, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return the files that nothing is kept of."""
    try:
        bench.packs = cache.read()
    except CacheError as error:
        logger.info("nothing is taken from the cache: %s", error)
    return {path: content for path, content in files.items() if not bench.knows(content)}


def _waited(cache: Cache, until_kept: contextlib.ExitStack) -> bool:
    """Be the only process that compiles so much; return whether another one has done so just now."""
    try:
        return until_kept.enter_context(cache.alone())
    except CacheError:
        return False  # that was said already


def _keep(bench: Bench, cache: Cache) -> None:
    """Keep what was made; where packs become many, together with what was taken from them."""
    if not bench.made:
        return
    together = len(bench.packs) >= FEW
    try:
        if together:
            cache.write(bench.everything, tuple(bench.useful))
        else:
            cache.write(bench.made)
    except CacheError as error:
        logger.info("nothing is kept in the cache: %s", error)
