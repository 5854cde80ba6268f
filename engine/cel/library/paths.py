r"""Cerbos's path functions, which take Unix, drive (``C:\a``) and UNC (``\\host\share\a``) paths anywhere.

A path is *encoded* to the Unix form, worked on by Go's rules (:mod:`.filepath`), and decoded to the style it
had: the rules of Cerbos's ``crosspath`` package, with its corner cases.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.cel.library import filepath
from engine.cel.library.arguments import string, strings
from engine.cel.library.declaration import Declaration, everywhere
from engine.cel.values import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DRIVE = re.compile(r"[A-Za-z]:")
UNC_VOLUME = re.compile(r"\\\\[^\\]+\\[^\\]+")


class Style(enum.Enum):
    """How a path was written."""

    UNIX = enum.auto()
    WINDOWS = enum.auto()
    DRIVE = enum.auto()
    UNC = enum.auto()


@dataclass(frozen=True, slots=True)
class Path:
    """A cleaned path in Unix form, and how to write it: *root* when it is a drive or a share by itself."""

    value: str
    style: Style
    root: bool

    def __str__(self) -> str:
        return DECODERS[self.style](self.value)


DECODERS: Mapping[Style, Callable[[str], str]] = {
    Style.UNIX: str,
    Style.WINDOWS: lambda value: value.replace("/", "\\"),
    Style.DRIVE: lambda value: value.replace("/", "\\").removeprefix("\\"),
    Style.UNC: lambda value: "\\" + value.replace("/", "\\"),
}


def encode(path: str) -> Path:
    """Bring *path* to its Unix form; raises :class:`EvaluationError` for ``C:a`` and ``C:/a``."""
    if path.startswith("\\\\"):
        return Path(_slashed(path), Style.UNC, root=path.count("\\", 2) == 1)
    if DRIVE.match(path):
        if len(path) > 2 and "\\" not in path:
            raise EvaluationError(f"failed to encode path {path}: unsupported Win32 path")
        return Path(_slashed("\\" + path), Style.DRIVE, root=len(path) <= 3)
    return Path(_slashed(path), Style.WINDOWS if "\\" in path else Style.UNIX, root=False)


def _slashed(path: str) -> str:
    return filepath.clean(path.replace("\\", "/"))


def base_path(path: object) -> str:
    """Return the last element of *path*."""
    return filepath.base(encode(string(path)).value)


def dir_path(path: object) -> str:
    """*path* without its last element."""
    encoded = encode(string(path))
    if encoded.style is Style.UNIX:
        return filepath.directory(encoded.value)
    if encoded.root:
        return f"{encoded}\\" if encoded.style is Style.DRIVE else str(encoded)
    before, slash, _ = encoded.value.rpartition("/")
    if not slash:
        raise EvaluationError(f"path {path} has no directory")
    return str(replace(encoded, value=before))


def ext_path(path: object) -> str:
    """Return the extension of the last element of *path*, with its dot."""
    return filepath.extension(encode(string(path)).value)


def volume_name(path: object) -> str:
    r"""Return the drive (``C:``) or share (``\\host\share``) that *path* begins with, if any."""
    volume = UNC_VOLUME.match(string(path)) or DRIVE.match(string(path))
    return volume[0] if volume else ""


def join_path(parts: object) -> str:
    """Return the parts one below the other, written as the first one is; a single part stays as it is."""
    elements = strings(parts)
    if len(elements) < 2:
        return "".join(elements)
    first, *others = [encode(element) for element in elements]
    return str(replace(first, value=filepath.join(first.value, *(other.value for other in others))))


def rel_path(start: object, target: object) -> str:
    """Return the way from *start* to *target*, written as *target* is."""
    return _relative(encode(string(start)), string(target))


def _relative(start: Path, target: str) -> str:
    encoded = encode(target)
    try:
        value = filepath.relative(start.value, encoded.value)
    except filepath.UnrelatedError as error:
        raise EvaluationError(f"failed to determine relative path of {target}: {error}") from None
    # A relative way has neither the host nor the drive that decoding would put in front.
    return value.replace("/", "\\") if encoded.style is not Style.UNIX else value


def path_has_prefix(path: object, prefix: object) -> bool:
    """Whether *path* is *prefix* or lies below it.

    As in Cerbos, what lies below under a name with a leading dot does not count.
    """
    whole, above = string(path), string(prefix)
    return whole == above or not _relative(encode(above), whole).startswith((".", "/"))


def path_match(path: object, pattern: object) -> bool:
    """Whether the glob *pattern* (``*``, ``?``, ``[a-z]``; no ``**``) is all of *path*."""
    name, glob = encode(string(path)), encode(string(pattern))
    try:
        return filepath.matches(glob.value, name.value)
    except filepath.BadPatternError as error:
        raise EvaluationError(f'failed to match pattern "{pattern}" on path "{path}": {error}') from None


def path_match_any_of(path: object, patterns: object) -> bool:
    """Whether one of the glob *patterns* is all of *path*; they are tried in order."""
    return any(path_match(path, pattern) for pattern in strings(patterns))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "basePath": base_path,
    "dirPath": dir_path,
    "extPath": ext_path,
    "volumeName": volume_name,
    "joinPath": join_path,
    "relPath": rel_path,
    "pathHasPrefix": path_has_prefix,
    "pathMatch": path_match,
    "pathMatchAnyOf": path_match_any_of,
}

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration("basePath", "basePath_string", ("string",), "string"),
    Declaration("dirPath", "dirPath_string", ("string",), "string"),
    Declaration("extPath", "extPath_string", ("string",), "string"),
    Declaration("volumeName", "volumeName_string", ("string",), "string"),
    Declaration("joinPath", "joinPath_stringarray", ("list<string>",), "string"),
    Declaration("relPath", "relPath_string_string", ("string", "string"), "string"),
    *everywhere("pathHasPrefix", ("string", "string"), "bool"),
    *everywhere("pathMatch", ("string", "string"), "bool"),
    *everywhere("pathMatchAnyOf", ("string", "list<string>"), "bool"),
)
