"""YAML and JSON text as plain values, with the place of each value on demand.

The compiled parser builds nodes and one walk turns them into values; the nodes, which know their line and
column, are built again only when a fault has to be placed. Text comes from people and from stores, so it is
read as hostile: aliases cannot be made to expand without bound, a key cannot be given twice, and depth and
size have limits.

Scalars follow the core schema of YAML 1.2: ``yes`` and ``12:30`` are strings. Keys are always strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
import yaml.cyaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Path = tuple[str | int, ...]
"""Where a value is inside a document: keys and indexes from the root."""

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 500_000


class Place(NamedTuple):
    """A line and a column, both counted from 1 (in characters); 0 and 0 mean the whole file."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One mistake in a file, worded for the person who can mend it.

    *line* and *column* count from 1; 0 means that the fault concerns the whole file. *kind* groups faults
    (``parse error``, ``validation error``, or the kind of a compile error), *hint* says what to do.
    """

    file: str
    line: int
    column: int
    message: str
    path: Path = field(default=(), compare=False)
    kind: str = field(default="", compare=False)
    hint: str = field(default="", compare=False)

    def __str__(self) -> str:
        place = f":{self.line}:{self.column}" if self.line else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}{place}: {self.message}{hint}" if self.file else f"{self.message}{hint}"


PARSE_ERROR = "parse error"
VALIDATION_ERROR = "validation error"


class DocumentError(Exception):
    """The text could not be read; *faults* are sorted by place."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(map(str, self.faults)))


class Document:
    """One document of a file: its plain *value*, and where each part of it stands."""

    __slots__ = ("_composed", "_content", "_places", "file", "position", "value")

    def __init__(self, file: str, value: Any, content: str | bytes, position: int) -> None:
        """*content* is that of the whole file, in which the document is the one at *position*, from 0."""
        self.file = file
        self.value = value
        self.position = position
        self._content = content
        self._composed: yaml.Node | None = None
        self._places: dict[tuple[Path, bool], Place] | None = None

    @property
    def content(self) -> bytes:
        """The content of the whole file."""
        return self._content if isinstance(self._content, bytes) else self._content.encode()

    @property
    def _text(self) -> str:
        return _decoded(self._content, self.file)

    @property
    def _root(self) -> yaml.Node:
        if self._composed is None:
            self._composed = list(_nodes(self._text))[self.position]
        return self._composed

    def forget_nodes(self) -> None:
        """Drop the nodes composed for placing; they come back when they are needed again."""
        self._composed = None

    def release(self) -> None:
        """Drop the value too: what was made of it lives on, and places can still be found."""
        self.value = None
        self._composed = None

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Return where the value at *path* starts, or with *key* the key that leads to it.

        A part of the path that the document does not have is left out: the nearest enclosing value is the
        place. Keys match in lowerCamel as well as in snake case. What was found is remembered: a failing
        expression names its place in each decision.
        """
        places = self._places
        if places is None:
            places = self._places = {}
        found = places.get((path, key))
        if found is None:
            node, key_node = self._find(path)
            found = places[path, key] = _start(key_node if key and key_node is not None else node)
        return found

    def token(self, path: Path) -> Place:
        """Return where Cerbos's parser says that the value at *path* begins.

        A block mapping begins at its first colon there, and a value that is left out behind a blank.
        """
        node, _ = self._find(path)
        start = _start(node)
        if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
            first = node.value[0][0]
            if _start(first) == start:  # else there is an anchor or a tag in front
                line = self._text.split("\n")[first.end_mark.line]
                return Place(first.end_mark.line + 1, line.find(":", first.end_mark.column) + 1)
        if isinstance(node, yaml.ScalarNode) and _start(node) == _end(node):
            return Place(start.line, start.column + 1)
        return start

    def last_line(self, path: Path) -> int:
        """Return the line in which the value at *path* ends, counted from 1."""
        node, _ = self._find(path)
        lines = self._text.splitlines()
        first, end = node.start_mark.line, node.end_mark
        # The mark of a block stands behind its last line break, and behind empty lines and comments.
        begun = end.line < len(lines) and bool(lines[end.line][: end.column].strip())
        last = end.line if begun else end.line - 1
        while last > first and _IDLE_LINE.match(lines[last]):
            last -= 1
        return max(first, last) + 1

    def source_text(self, path: Path) -> str | None:
        """Return the scalar at *path* as it was written (``007``, not 7), ``None`` if it is no scalar."""
        node, _ = self._find(path)
        return node.value if isinstance(node, yaml.ScalarNode) else None

    def fault(
        self,
        message: str,
        path: Path = (),
        *,
        key: bool = False,
        token: bool = False,
        kind: str = "",
        hint: str = "",
    ) -> Fault:
        """Make a fault placed at *path*; with *token* where Cerbos's parser says that the value begins."""
        line, column = self.token(path) if token and not key else self.place(path, key=key)
        return Fault(self.file, line, column, message, path, kind, hint)

    def _find(self, path: Path) -> tuple[yaml.Node, yaml.Node | None]:
        node, key_node = self._root, None
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            key_node, node = found
        return node, key_node


def parse(text: str | bytes, file: str) -> Document:
    """Read *text*, which holds at most one document that is not empty (an empty one has the value ``None``).

    Raises:
        DocumentError: the text is no YAML or JSON, is too large or too deep, or holds several documents.

    """
    documents = [document for document in parse_all(text, file) if document.value is not None]
    if len(documents) > 1:
        raise DocumentError([documents[1].fault("more than one YAML document detected", kind=PARSE_ERROR)])
    return documents[0] if documents else Document(file, None, "", 0)


def parse_all(text: str | bytes, file: str) -> list[Document]:
    """Read every document of *text*, those that are empty included.

    Raises:
        DocumentError: as for :func:`parse`.

    """
    source = _decoded(text, file)
    try:
        nodes = list(_nodes(source))
    except yaml.YAMLError as error:
        raise DocumentError([_syntax_fault(error, source, file)]) from None
    except _TooDeepError as error:
        raise DocumentError([_marked_fault(error.mark, error.message, file)]) from None
    return [_document(node, source, text, file, position) for position, node in enumerate(nodes)]


def did_you_mean(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """Return a hint that names the known word nearest to *name*, empty when none is near."""
    near = get_close_matches(name[:64], list(known), n=1, cutoff=likeness)
    return f"did you mean `{near[0]}`?" if near else ""


def json_path(path: Path) -> str:
    """Write a path as Cerbos does: ``$.resourcePolicy.rules[0].effect``."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{_quoted(step)}" for step in path)


def snake_case(name: str) -> str:
    """Return the protobuf name of a lowerCamel JSON field name: ``allowActions`` -> ``allow_actions``."""
    return re.sub("[A-Z]", lambda match: "_" + match[0].lower(), name)


def _quoted(step: str) -> str:
    return f"'{step}'" if "." in step else step


def _start(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _end(node: yaml.Node) -> Place:
    return Place(node.end_mark.line + 1, node.end_mark.column + 1)


# -- text to nodes -----------------------------------------------------------------------------------------

PLAIN = "plain"
QUOTED = "quoted"

# What YAML allows in a stream: everything printable, tabs, line breaks.
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\ufeff\U00010000-\U0010ffff]",
)


class _TooDeepError(Exception):
    def __init__(self, message: str, mark: yaml.Mark) -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark


class _Composer(yaml.cyaml.CParser):  # type: ignore[name-defined,misc]  # the stubs leave it out
    """The compiled parser; the hooks cost little and guard the native stack against deep documents."""

    _depth = 0

    def resolve(self, kind: type[yaml.Node], _value: str | None, implicit: Any) -> str:
        return PLAIN if kind is yaml.ScalarNode and implicit[0] else QUOTED

    def descend_resolver(self, parent: yaml.Node | None, _index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH and parent is not None:
            raise _TooDeepError(f"nested deeper than {MAX_DEPTH} levels", parent.start_mark)

    def ascend_resolver(self) -> None:
        self._depth -= 1


def _nodes(text: str) -> Iterator[yaml.Node]:
    composer: Any = _Composer(text)
    while composer.check_node():
        yield composer.get_node()


def _decoded(text: str | bytes, file: str) -> str:
    if len(text) > MAX_BYTES:
        raise DocumentError([Fault(file, 0, 0, f"larger than {MAX_BYTES} bytes", kind=PARSE_ERROR)])
    if isinstance(text, str):
        decoded = text.removeprefix("\ufeff")
    else:
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            place = _place_of(text[: error.start].decode(errors="replace"))
            raise DocumentError([Fault(file, *place, "the text is not UTF-8", kind=PARSE_ERROR)]) from None
    unprintable = _UNPRINTABLE.search(decoded)
    if unprintable:
        place = _place_of(decoded[: unprintable.start()])
        message = f"the character U+{ord(unprintable[0]):04X} is not allowed"
        raise DocumentError([Fault(file, *place, message, kind=PARSE_ERROR)])
    return decoded


_IDLE_LINE = re.compile(r"\s*(#|$)")


def _place_of(before: str) -> Place:
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


_QUOTED_START = re.compile(r"""(?:^|[:\-,\[{?]\s)\s*(["']).*\1\s*$""")


def _syntax_fault(error: yaml.YAMLError, text: str, file: str) -> Fault:
    """Turn the parser's exception into a fault, in its words, at its place."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return Fault(file, 0, 0, str(error), kind=PARSE_ERROR)
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Fault(file, 0, 0, error.problem or str(error), kind=PARSE_ERROR)
    if quote := _quote_before(text, mark):
        message = "invalid YAML string: use a literal or folded block for strings containing quotes"
        return Fault(file, *quote, message, kind=PARSE_ERROR)
    start = error.context_mark
    unclosed = _UNCLOSED.get(error.context or "")
    if unclosed and start and not "".join(text.split("\n")[mark.line :])[mark.column :].strip():
        return _marked_fault(start, unclosed, file)
    known = _AT_START.get(f"{error.problem} {error.context}")
    if known and start:
        return _marked_fault(start, known.format(quote=_quote_at(text, start)), file)
    context = f" {error.context}" if error.context else ""
    opened = f", which starts at line {start.line + 1}" if start and start.line != mark.line else ""
    return _marked_fault(mark, f"{error.problem}{context}{opened}", file)


_AT_START = {
    "found unexpected end of stream while scanning a quoted scalar": (
        "could not find end character of {quote}-quoted text"
    ),
    "could not find expected ':' while scanning a simple key": "non-map value is specified",
}
"""Mistakes that the parser notices late: they are placed where they begin, in the words of Cerbos."""


_UNCLOSED = {
    "while parsing a flow mapping": "could not find flow mapping end token '}'",
    "while parsing a flow sequence": "sequence end token ']' not found",
}
"""Brackets that the end of the text leaves open: they are placed where they stand, in the words of Cerbos."""


def _quote_at(text: str, mark: yaml.Mark) -> str:
    return "single" if text.splitlines()[mark.line][mark.column :].startswith("'") else "double"


def _quote_before(text: str, mark: yaml.Mark) -> Place | None:
    """Return where the quoted text begins that something stands behind which does not belong there."""
    lines = text.splitlines()
    found = _QUOTED_START.search(lines[mark.line][: mark.column]) if mark.line < len(lines) else None
    return Place(mark.line + 1, found.start(1) + 1) if found else None


def _marked_fault(mark: yaml.Mark, message: str, file: str) -> Fault:
    return Fault(file, mark.line + 1, mark.column + 1, message, kind=PARSE_ERROR)


# -- nodes to values ---------------------------------------------------------------------------------------


def _document(node: yaml.Node, text: str, content: str | bytes, file: str, position: int) -> Document:
    reader = _Reader(file, aliased="*" in text and _ANCHOR.search(text) is not None)
    value = reader.read(node)
    if reader.faults:
        raise DocumentError(reader.faults)
    return Document(file, value, content, position)


_ANCHOR = re.compile(r"&[0-9A-Za-z_-]")
"""What there is wherever the parser sees an anchor; ``a && b`` is none."""

_YAML_TAG = "tag:yaml.org,2002:"
_COLLECTION_TAGS = (QUOTED, _YAML_TAG + "map", _YAML_TAG + "seq")
_MERGE = "<<"
_SCALAR = (1, 0)


class _Reader:
    """Turns nodes into values. What an alias repeats is read once and shared, but counted each time."""

    def __init__(self, file: str, *, aliased: bool) -> None:
        self.faults: list[Fault] = []
        self._file = file
        self._aliased = aliased
        self._done: dict[int, Any] = {}
        self._extents: dict[int, tuple[int, int]] = {}  # how many values, how deep, by node, aliases expanded
        self._open: set[int] = set()

    def read(self, node: Any) -> Any:
        if type(node) is yaml.ScalarNode:
            return node.value if node.tag is QUOTED else self._scalar(node)
        return self._shared(node) if self._aliased else self._collection(node)

    def _shared(self, node: Any) -> Any:
        identity = id(node)
        if identity in self._done:
            return self._done[identity]
        if identity in self._open:
            self._refuse(node, "an alias stands inside the value that it repeats")
            return None
        self._open.add(identity)
        value = self._done[identity] = self._collection(node)
        self._open.discard(identity)
        self._measure(node)
        return value

    def _collection(self, node: Any) -> Any:
        if node.tag not in _COLLECTION_TAGS:
            self._refuse(node, f"the tag `{node.tag}` is not supported")
            return None
        if type(node) is yaml.MappingNode:
            return self._mapping(node)
        return [self.read(item) for item in node.value]

    def _measure(self, node: Any) -> None:
        inner = node.value if type(node) is yaml.SequenceNode else [item for _, item in node.value]
        extents = [self._extents.get(id(item), _SCALAR) for item in inner]
        size = 1 + sum([size for size, _ in extents])
        depth = 1 + max([depth for _, depth in extents], default=0)
        self._extents[id(node)] = size, depth
        if size > MAX_NODES:
            self._refuse(node, f"more than {MAX_NODES} values once aliases are expanded")
            raise DocumentError(self.faults)
        if depth > MAX_DEPTH:
            self._refuse(node, f"nested deeper than {MAX_DEPTH} levels once aliases are expanded")
            raise DocumentError(self.faults)

    def _mapping(self, node: Any) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] | None = None
        for key_node, value_node in node.value:
            key = self._key(key_node)
            value = self.read(value_node)
            if key == _MERGE and key_node.tag is PLAIN:
                merged = self._merged(value, value_node)
            own[key] = value
        if len(own) < len(node.value):
            self._report_repeated(node)
        if merged is None:
            return own
        del own[_MERGE]
        return merged | own

    def _merged(self, value: Any, node: Any) -> dict[str, Any]:
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            self._refuse(node, "`<<` takes a mapping or a list of mappings")
            return {}
        merged: dict[str, Any] = {}
        for source in reversed(sources):
            merged |= source
        return merged

    def _key(self, node: Any) -> str:
        if type(node) is yaml.ScalarNode:
            key: str = node.value
            return key
        self._refuse(node, "a key must be text")
        return ""

    def _report_repeated(self, node: Any) -> None:
        first: dict[str, Any] = {}
        keys = [key for key, _ in node.value if type(key) is yaml.ScalarNode]
        for key in keys:
            earlier = first.setdefault(key.value, key)
            if earlier is not key:
                place = f"[{earlier.start_mark.line + 1}:{earlier.start_mark.column + 1}]"
                self._refuse(key, f'mapping key "{key.value}" already defined at {place}')

    def _scalar(self, node: Any) -> Any:
        read = _SCALARS.get(node.tag)
        if read is None:
            self._refuse(node, f"the tag `{node.tag}` is not supported")
            return None
        try:
            return read(node.value)
        except ValueError:
            self._refuse(node, "the value does not fit its type")
            return None

    def _refuse(self, node: Any, message: str) -> None:
        self.faults.append(_marked_fault(node.start_mark, message, self._file))


_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = {
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_NUMBER_START = frozenset("0123456789+-.")


def _plain(text: str) -> Any:
    """Resolve a scalar written without quotes by YAML 1.2's core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text)
    return _float(text) if text in _NOT_FINITE or _FLOAT.fullmatch(text) else text


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _float(text: str) -> float:
    return _NOT_FINITE[text] if text in _NOT_FINITE else float(text)


def _boolean(text: str) -> bool:
    value = _CONSTANTS.get(text)
    if isinstance(value, bool):
        return value
    raise ValueError(text)


def _null(text: str) -> None:
    if _CONSTANTS.get(text, text) is not None:
        raise ValueError(text)


_SCALARS: Mapping[str, Callable[[str], Any]] = {
    PLAIN: _plain,
    QUOTED: str,
    _YAML_TAG + "str": str,
    _YAML_TAG + "int": _integer,
    _YAML_TAG + "float": _float,
    _YAML_TAG + "bool": _boolean,
    _YAML_TAG + "null": _null,
}


# -- places ------------------------------------------------------------------------------------------------


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    """Return the key node (for a mapping) and the value node one *step* down."""
    if isinstance(step, int):
        items: Sequence[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else ()
        return (None, items[step]) if 0 <= step < len(items) else None
    if not isinstance(node, yaml.MappingNode):
        return None
    entries = {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    found = entries.get(step) or entries.get(snake_case(step))
    return found or _merged_child(entries.get(_MERGE), step)


def _merged_child(
    merge: tuple[yaml.Node, yaml.Node] | None, step: str
) -> tuple[yaml.Node | None, yaml.Node] | None:
    if merge is None:
        return None
    node = merge[1]
    sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return next((found for source in sources if (found := _child(source, step))), None)
