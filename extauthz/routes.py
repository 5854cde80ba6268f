"""Routes: which of them a request belongs to.

All patterns become one :class:`RouteTable`. The most specific wins, and two numbers settle what that means:
first the host (exact, then the longest ``*.`` suffix, then any), then the path, segment by segment from the
left (a literal, then a typed capture, then a capture, then ``{rest=**}``). Host and path choose a *place*;
the routes of one place differ by methods and headers only. Nothing ever falls through from one place to a
less specific one: a path that is known, asked with a method that is not, is :class:`MethodNotAllowed`.

The patterns of one host and one length that capture at the same positions share a *form*: one dictionary,
by their literals. So the cost of matching follows the number of forms, of which even large tables have a few,
and not the number of routes.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from extauthz.request import PATH_FAULTS, canonical_target, read_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from extauthz.request import HttpRequest

MAX_SEGMENTS: Final = 32
"""Segments of a path template. What a request has more of can only be matched by ``{rest=**}``."""


# --- path templates ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CaptureType:
    """What a typed capture accepts, as a whole segment, and the value it becomes.

    The patterns of two types never accept the same text, and a value has exactly one accepted spelling (or is
    converted to one): otherwise ``/expenses/7`` and ``/expenses/007`` could be one record to the upstream and
    two to a policy.
    """

    accepts: Callable[[str], object]
    convert: Callable[[str], object]


CAPTURE_TYPES: Final[Mapping[str, CaptureType]] = {
    "int": CaptureType(re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII).fullmatch, int),
    "uuid": CaptureType(
        re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE).fullmatch,
        str.lower,
    ),
}
"""``{id:int}``: a 64-bit integer in its shortest spelling. ``{id:uuid}``: RFC 9562 §4, made lower case."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A segment that must be exactly this, decoded and case-sensitive."""

    text: str


@dataclass(frozen=True, slots=True)
class Capture:
    """A segment that may be anything but empty, or anything its type accepts."""

    name: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class Rest:
    """All further segments, at least one, which may be empty: ``/static/{rest=**}`` has ``/static/``."""

    name: str


Segment = Literal | Capture | Rest
Shape = tuple[Segment, ...]

_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+)|=(\*\*))?\}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """``/api/expenses/{id}``: whole segments, literal or captured. See :meth:`parse`."""

    text: str
    segments: tuple[Segment, ...]

    @classmethod
    def parse(cls, text: object) -> PathTemplate:
        """Read a template.

        Literal segments are written decoded, as they are compared. ``{name}``, ``{name:int}`` and
        ``{name:uuid}`` stand for one segment, ``{name=**}`` for all that follow.

        Raises:
            ValueError: worded for the author.

        """
        if not isinstance(text, str) or not text.startswith("/"):
            raise ValueError(f"`{text}` is not a path: it begins with `/`")
        segments = tuple(_segment(part, text) for part in text[1:].split("/"))
        if len(segments) > MAX_SEGMENTS:
            raise ValueError(f"a path has at most {MAX_SEGMENTS} segments")
        if any(isinstance(segment, Rest) for segment in segments[:-1]):
            raise ValueError(f"`{text}`: `{{...=**}}` takes all that follows, so it comes last")
        names = [segment.name for segment in segments if not isinstance(segment, Literal)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"`{text}`: the parameter `{{{name}}}` is there twice")
        return cls(text, segments)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its captures, in order."""
        return tuple(segment.name for segment in self.segments if not isinstance(segment, Literal))

    @property
    def parameters(self) -> frozenset[str]:
        """The names of its captures."""
        return frozenset(self.names)

    @property
    def shape(self) -> Shape:
        """The template without the names of its captures: two of one shape match the same paths."""
        return tuple(_without_name(segment) for segment in self.segments)

    def unreachable(self, relaxed: frozenset[str] = frozenset()) -> str:
        """Say why no request can match, given the path faults that are accepted; empty if one can."""
        example = tuple(segment.text if isinstance(segment, Literal) else "x" for segment in self.segments)
        target = canonical_target("/" + "/".join(quote(text, safe="") for text in example))
        refused = [fault for fault in target.faults if fault not in relaxed]
        if refused:
            return f"a path with {PATH_FAULTS[refused[0]]} is refused before (`{refused[0]}`)"
        return "" if target.segments == example else f"such a path is read as `{target.path}`"

    def __str__(self) -> str:
        return self.text


def _segment(part: str, text: str) -> Segment:
    capture = _CAPTURE.fullmatch(part)
    if capture is not None:
        name, kind, rest = capture.groups()
        if kind and kind not in CAPTURE_TYPES:
            known = ", ".join(f"`{known}`" for known in CAPTURE_TYPES)
            raise ValueError(
                f"`{text}`: unknown type `{kind}` of the parameter `{{{name}}}` (there is {known})"
            )
        return Rest(name) if rest else Capture(name, kind or "")
    if "{" in part or "}" in part:
        raise ValueError(
            f"`{text}`: a parameter is a whole segment: `{{name}}`, `{{name:int}}` or `{{name=**}}`"
        )
    if "*" in part:
        raise ValueError(f"`{text}`: `*` is no wildcard here: write `{{name}}` or, at the end, `{{name=**}}`")
    if "%" in part:
        raise ValueError(f"`{text}`: write the path decoded, without `%`")
    if "?" in part or "#" in part:
        raise ValueError(
            f"`{text}`: a route does not look at the query: leave out what begins with `?` or `#`"
        )
    return Literal(part)


def _without_name(segment: Segment) -> Segment:
    if isinstance(segment, Capture):
        return Capture("", segment.type)
    return Rest("") if isinstance(segment, Rest) else segment


# --- hosts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class HostPattern:
    """``api.example.com``, or with *wildcard* any host below *name*, however deep (``*.example.com``)."""

    name: str
    wildcard: bool = False

    @classmethod
    def parse(cls, text: object) -> HostPattern:
        """Read a host, lower case or not; raises ``ValueError``, worded for the author."""
        if not isinstance(text, str) or not text:
            raise ValueError(f"`{text}` is not a host")
        if text == "*":
            raise ValueError("leave `hosts` out to match any host")
        wildcard = text.startswith("*.")
        authority = read_authority(text[2:] if wildcard else text)
        if authority.port is not None:
            raise ValueError(f"`{text}`: hosts are compared without their port: leave it out")
        if authority.fault or not authority.host or (wildcard and authority.host.startswith("[")):
            raise ValueError(f"`{text}` is not a host: write `api.example.com` or `*.example.com`")
        return cls(authority.host, wildcard)

    def __str__(self) -> str:
        return f"*.{self.name}" if self.wildcard else self.name


# --- patterns and their clashes ---------------------------------------------------------------------------

HeaderCondition = tuple[str, str | None]
"""A header's name, lower case, and the value it must have; None: any value."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a route matches. No hosts: any host. *methods* None: any method."""

    path: PathTemplate
    hosts: tuple[HostPattern, ...] = ()
    methods: frozenset[str] | None = None
    headers: tuple[HeaderCondition, ...] = ()
    trailing_slash: bool = False
    """Whether ``/a`` also matches ``/a/``, and the other way round."""

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of the paths that match."""
        shape = self.path.shape
        if not self.trailing_slash or isinstance(shape[-1], Rest) or shape == (Literal(""),):
            return (shape,)
        return (shape, shape[:-1] if shape[-1] == Literal("") else (*shape, Literal("")))

    @property
    def places(self) -> Iterator[tuple[HostPattern | None, Shape]]:
        """Host and shape of everything that matches."""
        hosts: tuple[HostPattern | None, ...] = self.hosts or (None,)
        return ((host, shape) for host in hosts for shape in self.shapes)

    @property
    def rank(self) -> tuple[bool, int, int]:
        """How specific it is among the patterns of one place; the greatest that fits a request wins."""
        exact = sum(value is not None for _, value in self.headers)
        return (self.methods is not None, exact, len(self.headers) - exact)

    def accepts(self, request: HttpRequest) -> bool:
        """Whether the header conditions hold."""
        for name, wanted in self.headers:
            value = request.header(name)
            if value is None or (wanted is not None and value != wanted):
                return False
        return True

    def __str__(self) -> str:
        methods = "|".join(sorted(self.methods)) + " " if self.methods else ""
        return f"{methods}{','.join(map(str, self.hosts))}{self.path}"


class Clash(NamedTuple):
    """Two patterns, by their positions, of which neither is the more specific for some request."""

    first: int
    second: int
    reason: str


def clashes(patterns: Sequence[Pattern]) -> list[Clash]:
    """Find every pair that could answer one request, in the order of the second."""
    places: dict[tuple[HostPattern | None, Shape], list[int]] = {}
    for position, pattern in enumerate(patterns):
        for place in dict.fromkeys(pattern.places):
            places.setdefault(place, []).append(position)
    pairs = {pair for members in places.values() for pair in combinations(members, 2)}
    found = ((pair, _clash(patterns[pair[0]], patterns[pair[1]])) for pair in pairs)
    return sorted((Clash(*pair, reason) for pair, reason in found if reason), key=lambda clash: clash[1::-1])


def _clash(one: Pattern, other: Pattern) -> str:
    """Say how two patterns of one place get into each other's way; empty if they do not."""
    if one.rank != other.rank or not _share_a_method(one, other) or _exclude_each_other(one, other):
        return ""
    if one.headers == other.headers:
        return "matches the same requests"
    return "can match the same requests, by header conditions that are just as specific,"


def _share_a_method(one: Pattern, other: Pattern) -> bool:
    return one.methods is None or other.methods is None or not one.methods.isdisjoint(other.methods)


def _exclude_each_other(one: Pattern, other: Pattern) -> bool:
    """Whether they want different values of one header."""
    wanted = dict(one.headers)
    return any(
        value is not None and wanted.get(name) is not None and wanted[name] != value
        for name, value in other.headers
    )


# --- the table --------------------------------------------------------------------------------------------


class HasPattern(Protocol):
    """Anything with a pattern can be a route."""

    @property
    def pattern(self) -> Pattern:
        """What it matches."""


R = TypeVar("R", bound=HasPattern)


class Match(NamedTuple, Generic[R]):
    """The route of a request, and the values of its captures by name."""

    route: R
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class NotFound:
    """No route has this path, or none with headers like these."""


NOT_FOUND: Final = NotFound()


@dataclass(frozen=True, slots=True)
class MethodNotAllowed:
    """Routes have this path, but not with this method. *allowed*: the methods they have, sorted."""

    allowed: tuple[str, ...]


Values = tuple[object, ...]
Found = Match[R] | NotFound | MethodNotAllowed
_new = tuple.__new__
"""Makes a named tuple in a third of the time, where all its fields are at hand."""


class _Entry(Generic[R]):
    """A route at one place."""

    __slots__ = ("conditions", "constant", "names", "only", "pattern", "route")

    def __init__(self, route: R) -> None:
        self.route = route
        self.pattern = route.pattern
        self.conditions = bool(route.pattern.headers)
        self.names = route.pattern.path.names
        self.only = self.names[0] if len(self.names) == 1 else None
        self.constant = None if self.names else Match(route, _NO_PARAMETERS)


_NO_PARAMETERS: Final[Mapping[str, object]] = MappingProxyType({})


class _Place(Generic[R]):
    """The routes of one host and one shape."""

    __slots__ = ("_entries", "_refusal", "any_method", "by_method")

    def __init__(self) -> None:
        self._entries: list[_Entry[R]] = []
        self.by_method: dict[str, tuple[_Entry[R], ...]] = {}
        self.any_method: tuple[_Entry[R], ...] = ()
        self._refusal = MethodNotAllowed(())

    def add(self, entry: _Entry[R]) -> None:
        """Add a route; the most specific come first in what is looked up."""
        self._entries.append(entry)
        self._entries.sort(key=lambda each: each.pattern.rank, reverse=True)
        methods = frozenset().union(*(each.pattern.methods or () for each in self._entries))
        self.by_method = {method: self._for(method) for method in methods}
        self.any_method = tuple(each for each in self._entries if each.pattern.methods is None)
        self._refusal = MethodNotAllowed(tuple(sorted(methods)))

    def _for(self, method: str) -> tuple[_Entry[R], ...]:
        return tuple(e for e in self._entries if e.pattern.methods is None or method in e.pattern.methods)

    def choose(self, request: HttpRequest, values: tuple[object, ...]) -> Found[R]:
        """Find the route by method and headers; *values* are those of the captures."""
        entries = self.by_method.get(request.method, self.any_method)
        for entry in entries:
            if entry.conditions and not entry.pattern.accepts(request):
                continue
            if entry.only is not None:  # so it is with nearly every path that has captures
                return _new(Match, (entry.route, {entry.only: values[0]}))
            return entry.constant or Match(entry.route, dict(zip(entry.names, values, strict=True)))
        return NOT_FOUND if entries else self._refusal


Key = str | tuple[str, ...]
"""The literals of a path, as :class:`operator.itemgetter` gives them."""


class _Form(Generic[R]):
    """The shapes for paths of one length that capture at the same positions: they differ in literals only."""

    __slots__ = ("captures", "key", "only", "places", "rest")

    def __init__(self, shape: Shape) -> None:
        """*shape* is one of them."""
        literals = [at for at, segment in enumerate(shape) if isinstance(segment, Literal)]
        captures = [(at, segment) for at, segment in enumerate(shape) if isinstance(segment, Capture)]
        self.key: Callable[[Sequence[str]], Key] = (
            operator.itemgetter(*literals) if literals else _no_literals
        )
        self.captures = tuple((at, CAPTURE_TYPES.get(capture.type)) for at, capture in captures)
        self.rest = len(shape) - 1 if isinstance(shape[-1], Rest) else None
        is_simple = self.rest is None and len(captures) == 1 and not captures[0][1].type
        self.only = captures[0][0] if is_simple else None
        """The position of the capture, when there is one, without a type."""
        self.places: dict[Key, _Place[R]] = {}

    def values(self, segments: tuple[str, ...]) -> Values | None:
        """Return what is captured; None when something there does not fit."""
        found: list[object] = []
        for at, kind in self.captures:
            text = segments[at]
            if not text or (kind is not None and not kind.accepts(text)):
                return None
            found.append(text if kind is None else kind.convert(text))
        if self.rest is not None:
            found.append("/".join(segments[self.rest :]))
        return tuple(found)


def _no_literals(_: Sequence[str]) -> Key:
    return ()


class _Tree(Generic[R]):
    """The paths of one host."""

    __slots__ = ("_places", "forms", "literal")

    def __init__(self) -> None:
        self.literal: dict[tuple[str, ...], _Place[R]] = {}
        """Paths without captures: always the most specific, so they are looked up first and as a whole."""
        self._places: dict[Shape, _Place[R]] = {}
        """The other ones."""
        self.forms: dict[int, tuple[_Form[R], ...]] = {}
        """By the length of paths, the most specific first; made when a path of that length comes."""

    def grow(self, shape: Shape) -> _Place[R]:
        """Return the place of *shape*, made if it is not there yet."""
        texts = tuple(segment.text for segment in shape if isinstance(segment, Literal))
        if len(texts) == len(shape):
            return self.literal.setdefault(texts, _Place())
        return self._places.setdefault(shape, _Place())

    def find(self, request: HttpRequest) -> Found[R] | None:
        """Find the place of the request's path, and the route there; None if there is no such place."""
        segments = request.segments
        place = self.literal.get(segments)
        if place is not None:
            return place.choose(request, ())
        forms = self.forms.get(len(segments))
        for form in self._forms_of(len(segments)) if forms is None else forms:
            place = form.places.get(form.key(segments))
            if place is None:
                continue
            if form.only is not None:
                text = segments[form.only]
                values: Values | None = (text,) if text else None
            else:
                values = form.values(segments)
            if values is not None:
                return place.choose(request, values)
        return None

    def _forms_of(self, length: int) -> tuple[_Form[R], ...]:
        forms: dict[tuple[tuple[int, str], ...], _Form[R]] = {}
        for shape, place in self._places.items():
            if len(shape) == length or (len(shape) < length and isinstance(shape[-1], Rest)):
                form = forms.setdefault(_specificity(shape), _Form(shape))
                form.places[form.key([_text(segment) for segment in shape])] = place
        made = tuple(forms[rank] for rank in sorted(forms))
        self.forms[length] = made
        return made


def _specificity(shape: Shape) -> tuple[tuple[int, str], ...]:
    """Rank a shape segment by segment from the left; less is more specific."""
    return tuple(_rank(segment) for segment in shape)


def _rank(segment: Segment) -> tuple[int, str]:
    match segment:
        case Literal():
            return 0, ""
        case Capture(type=""):
            return 2, ""
        case Capture(type=kind):
            return 1, kind
        case Rest():
            return 3, ""


def _text(segment: Segment) -> str:
    return segment.text if isinstance(segment, Literal) else ""


class RouteTable(Generic[R]):
    """All routes, for looking up. Not changed once made.

    Args:
        routes: with patterns among which :func:`clashes` finds nothing.

    """

    __slots__ = ("_any", "_below", "_hosts", "_lookups", "_other_hosts")

    def __init__(self, routes: Iterable[R]) -> None:
        self._hosts: dict[str, _Tree[R]] = {}
        self._below: dict[str, _Tree[R]] = {}
        self._any: _Tree[R] = _Tree()
        for route in routes:
            entry = _Entry(route)
            for host, shape in dict.fromkeys(route.pattern.places):
                self._tree(host).grow(shape).add(entry)
        self._other_hosts = () if self._below else (self._any,)
        """Where the paths of a host are that no route names, if that can be said beforehand."""
        self._lookups = {host: (tree, *self._other_hosts) for host, tree in self._hosts.items()}

    def match(self, request: HttpRequest) -> Found[R]:
        """Find the route of *request*.

        A path with faults is matched by how it is read (:class:`extauthz.request.Target`); whether the route
        accepts those faults is for the caller to ask.
        """
        found: Found[R] | None = None
        exact = self._hosts.get(request.host)
        if exact is not None:
            found = exact.find(request)
        if found is None and self._below:
            found = self._find_below(request)
        return found or self._any.find(request) or NOT_FOUND

    def usual(self, host: str, segments: tuple[str, ...], method: str) -> tuple[R, str] | None:
        """Find the route that :meth:`match` finds, and what its one capture holds, by lookups alone.

        None: that is not enough (a host below a wildcard, several captures, header conditions, no route at
        all): ask :meth:`match`. The text is empty for a path without captures.
        """
        for tree in self._lookups.get(host, self._other_hosts):
            place = tree.literal.get(segments)
            text = ""
            if place is None:
                forms = tree.forms.get(len(segments))
                if forms is None:
                    return None
                for form in forms:
                    place = form.places.get(form.key(segments))
                    if place is not None:
                        break
                else:
                    continue
                text = "" if form.only is None else segments[form.only]
                if not text:
                    return None
            entries = place.by_method.get(method, place.any_method)
            if not entries or entries[0].conditions:
                return None
            return entries[0].route, text
        return None

    def _tree(self, host: HostPattern | None) -> _Tree[R]:
        if host is None:
            return self._any
        return (self._below if host.wildcard else self._hosts).setdefault(host.name, _Tree())

    def _find_below(self, request: HttpRequest) -> Found[R] | None:
        """Look at the routes of wildcards, the longest suffix of the host (255 characters at most) first."""
        host = request.host
        while (dot := host.find(".")) >= 0:
            host = host[dot + 1 :]
            below = self._below.get(host)
            found = None if below is None else below.find(request)
            if found is not None:
                return found
        return None
