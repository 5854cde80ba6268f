"""The last good bundle, kept on disk: for a start without its source, and so that no older one comes back."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.storage import StoreError
from engine.storage.atomic import locked, prepared, read_bounded, write_atomically
from engine.storage.bundle.format import Bundle, BundleError, open_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

logger = logging.getLogger(__name__)


class RollbackError(BundleError):
    """A bundle is older than one that was in force already."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Which bundles are taken: signed by one of *keys*, called *name*, not larger than *max_bytes*."""

    keys: Mapping[str, Ed25519PublicKey]
    name: str
    max_bytes: int

    def opened(self, data: bytes) -> Bundle:
        """Return what is in a bundle that may be taken.

        Raises:
            BundleError: it may not.

        """
        return open_bundle(data, self.keys, self.name)


class LastGood:
    """One bundle in a directory, the last that was taken from a source. Processes may share it."""

    def __init__(self, directory: Path, trust: Trust, *, allow_rollback: bool) -> None:
        self._directory = directory
        self._trust = trust
        self._allow_rollback = allow_rollback
        # A name for each name of bundles: staging and production may share the directory.
        self.file = directory / f"{hashlib.sha256(trust.name.encode()).hexdigest()[:32]}.bundle"

    @classmethod
    def within(cls, directory: str, trust: Trust, *, allow_rollback: bool) -> LastGood:
        """Use *directory*, which is made if it is not there.

        Raises:
            StoreError: it cannot be written to.

        """
        return cls(prepared(Path(directory), "cacheDir"), trust, allow_rollback=allow_rollback)

    def read(self) -> Bundle | None:
        """Return the bundle, verified again; ``None`` when there is none that may be taken."""
        try:
            data = read_bounded(self.file, self._trust.max_bytes)
            return None if data is None else self._trust.opened(data)
        except StoreError as error:
            logger.warning("the bundle in `%s` is not used: %s", self.file, error)
            return None

    def take(self, bundle: Bundle, data: bytes) -> None:
        """Keep a new bundle, whose bytes are *data*, unless a newer one was taken before.

        Raises:
            RollbackError: one was.
            StoreError: it cannot be written; it is not to be used then, or it could be rolled back later.

        """
        try:
            with locked(self._directory):
                before = self.read()
                if before is not None and before.manifest == bundle.manifest:
                    return
                if before is not None and not self._allow_rollback:
                    _refuse_rollback(before, bundle)
                write_atomically(self.file, data)
        except OSError as error:
            raise StoreError(f"cannot keep the bundle in `{self._directory}`: {error.strerror}") from error


def _refuse_rollback(before: Bundle, bundle: Bundle) -> None:
    name, known, offered = before.manifest.name, before.manifest.sequence, bundle.manifest.sequence
    if offered < known:
        raise RollbackError(
            f"the source offers bundle {offered} of `{name}`, but {known} was in force already: "
            "publish a higher sequence number, or set `allowRollback`"
        )
    if offered == known:
        raise RollbackError(
            f"there are two bundles {offered} of `{name}`: each needs its own sequence number"
        )
