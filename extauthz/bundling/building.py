"""What signing a directory of policies needs besides them: keys, a moment, a number."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.storage import StoreError
from engine.storage.bundle.format import MAX_BYTES
from engine.storage.bundle.keys import MAX_KEY_FILE, private_key, private_pem, public_keys, public_pem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PASSWORD_VARIABLE: Final = "EXTAUTHZ_KEY_PASSWORD"  # noqa: S105 - the name of a variable
EPOCH_VARIABLE: Final = "SOURCE_DATE_EPOCH"
"""What reproducible builds take for now (reproducible-builds.org), in seconds since 1970."""


def moment(environment: Mapping[str, str]) -> datetime.datetime:
    """Return when a bundle counts as made: now, unless the environment says otherwise.

    Raises:
        ValueError: what it says is no time.

    """
    epoch = environment.get(EPOCH_VARIABLE, "")
    if not epoch:
        return datetime.datetime.now(datetime.UTC)
    if not epoch.isascii() or not epoch.isdigit() or len(epoch) > 11:
        raise ValueError(f"`{EPOCH_VARIABLE}` is not a number of seconds since 1970")
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)


def signing_keys(files: Iterable[Path], password: str) -> list[Ed25519PrivateKey]:
    """Read the private keys in *files*, which may be pipes.

    Raises:
        StoreError: one cannot be used.

    """
    secret = password.encode() or None
    return [private_key(read(file, MAX_KEY_FILE), f"`{file}`", secret) for file in files]


def verifying_keys(files: Iterable[Path]) -> list[Ed25519PublicKey]:
    """Read the public keys in *files*.

    Raises:
        StoreError: one cannot be used.

    """
    return [key for file in files for key in public_keys(read(file, MAX_KEY_FILE), f"`{file}`")]


def read(file: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return what is in *file*.

    Raises:
        StoreError: it cannot be read, or is larger than *max_bytes*.

    """
    try:
        with file.open("rb") as opened:
            content = opened.read(max_bytes + 1)
    except OSError as error:
        raise StoreError(f"cannot read `{file}`: {error.strerror}") from error
    if len(content) > max_bytes:
        raise StoreError(f"`{file}` is larger than {max_bytes} bytes")
    return content


def write_new_keys(prefix: Path, password: str) -> tuple[Ed25519PublicKey, Path, Path]:
    """Make a pair of keys and write it to files that do not exist yet: ``PREFIX.pem``, ``PREFIX.pub.pem``.

    Raises:
        StoreError: one of them exists, or cannot be written.

    """
    private_file, public_file = Path(f"{prefix}.pem"), Path(f"{prefix}.pub.pem")
    key = Ed25519PrivateKey.generate()
    public = key.public_key()
    try:
        for file, content, mode in (
            (private_file, private_pem(key, password.encode() or None), 0o600),
            (public_file, public_pem(public), 0o644),
        ):
            file.touch(mode=mode, exist_ok=False)
            file.write_bytes(content)
    except FileExistsError as error:
        raise StoreError(f"`{error.filename}` exists: keys are never overwritten") from None
    except OSError as error:
        raise StoreError(f"cannot write `{error.filename}`: {error.strerror}") from None
    return public, private_file, public_file
