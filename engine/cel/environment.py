"""The line-up: text -> checked nodes -> Python syntax -> function."""

from __future__ import annotations

import ast
import functools
import hashlib
import itertools
import logging
import re
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from engine.cel import codegen, library, portable, runtime, shapes, wellknown
from engine.cel.block import BlockChecker
from engine.cel.checks import Survey, survey
from engine.cel.codegen import Generated, Vocabulary
from engine.cel.frontend import Checker, CompileError, Issue
from engine.cel.records import Record, native_list, native_map, readers
from engine.cel.runtime import Listing
from engine.cel.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from engine.cel.nodes import Node, Span

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONVERSIONS = {
    "bool": "to_bool",
    "bytes": "to_bytes",
    "double": "to_double",
    "duration": "to_duration",
    "int": "to_int",
    "string": "to_string",
    "timestamp": "to_timestamp",
    "type": "type_of",
    "uint": "to_uint",
}
"""Functions of the runtime that an expression can call by name."""

NAMESPACE_TYPE = "cerbos.Variables"
"""What cel-go says in Cerbos when ``V``, ``C`` or ``G`` is used as a value."""


def _global_name(function: str) -> str:
    """Return a Python name for a CEL function: ``math.@max`` is ``cel_math__max``."""
    return f"cel_{re.sub(r'[^A-Za-z0-9]', '_', function)}"


LIBRARY_NAMES = {name: _global_name(name) for name in library.FUNCTIONS}
FUNCTION_NAMES = {**LIBRARY_NAMES, **CONVERSIONS}

GLOBALS: dict[str, Any] = {
    **{
        name: value
        for name, value in vars(runtime).items()
        if getattr(value, "__module__", "") == runtime.__name__
    },
    "MAX_ITERATIONS": runtime.MAX_ITERATIONS,
    "make_message": wellknown.make_message,
    "native_list": native_list,
    "native_map": native_map,
    **{LIBRARY_NAMES[name]: function for name, function in library.FUNCTIONS.items()},
    "__builtins__": {},
    **{builtin.__name__: builtin for builtin in (Exception, bool, dict, float, len, list, str)},
}
"""All that generated code can reach. Shared by all expressions, never written to."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression failed: *line* and *column* count from 1, *excerpt* underlines the failing part."""

    line: int
    column: int
    excerpt: str


class KeptPrograms(Protocol):
    """Keeps compiled expressions by their texts, for environments that are alike."""

    @property
    def keeps(self) -> bool:
        """Whether it wants what is compiled; else it only gives what it has."""

    def get(self, text: str) -> tuple[bytes | memoryview, Any] | None:
        """Return the form of :mod:`engine.cel.portable` and the findings, ``None`` when there are none."""

    def put(self, text: str, data: bytes, findings: Any) -> None:
        """Keep them."""


def vocabulary(records: Sequence[Record], namespaces: Collection[str]) -> Vocabulary:
    """Return what code can refer to that is generated for expressions over *records* and *namespaces*."""
    return Vocabulary(
        records={record.name: record for record in records},
        readers=readers(records),
        namespaces=frozenset(namespaces),
        functions=FUNCTION_NAMES,
        needs_now=library.NEEDS_NOW,
    )


class Environment:
    """Compiles expressions over a set of variables.

    *variables* maps identifiers to CEL type texts: ``string``, ``dyn``, ``map<string, dyn>``, the name of one
    of *records*. *namespaces* are identifiers of type ``dyn`` that can only be selected from: ``V.x``, never
    ``V["x"]``; their values are mappings that word the failure for a missing name themselves.

    *inspect* is shown the checked syntax tree of each text once; what it says is kept as
    :attr:`Expression.findings`.

    *blocks* adds ``cel.block``, the notation of cel-spec for what an optimiser makes of an expression
    (:mod:`engine.cel.block`). Cerbos does not know it, so no policy is compiled with it.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        *,
        records: Sequence[Record] = (),
        namespaces: Collection[str] = (),
        container: str = "",
        inspect: Callable[[Node], Any] | None = None,
        blocks: bool = False,
    ) -> None:
        self._inspect = inspect
        self._checker = (BlockChecker if blocks else Checker)(
            variables,
            records=records,
            declarations=library.DECLARATIONS,
            container=container,
        )
        self._namespaces = dict.fromkeys(namespaces, NAMESPACE_TYPE)
        self._vocabulary = vocabulary(records, namespaces)
        self._programs: weakref.WeakValueDictionary[str, Program] = weakref.WeakValueDictionary()
        self._shapes: dict[str, tuple[shapes.Shape | None, portable.Parts | None] | None] = {}
        """What came of each shape that has come again; ``None`` for those that have come once."""
        self.kept: KeptPrograms | None = None
        """Where compiled expressions are kept beyond the life of this process, if that is so."""

    def compile(
        self, text: str, name: str = "<expression>", *, kept: KeptPrograms | None = None
    ) -> Expression:
        """Compile *text*; equal texts share their code. *kept* is asked first, by default :attr:`kept`.

        Raises:
            CompileError: the text is no valid expression; all that is wrong with it, worded as by cel-go.

        """
        program = self._programs.get(text)
        if program is None:
            program = self._unpacked(text, kept or self.kept) or self._compiled(text)
            self._programs[text] = program
        return Expression(text, name, program)

    def _compiled(self, text: str) -> Program:
        listing = Listing(_file(text), text)
        # What is found out about an expression speaks of its constants too: then each is looked into.
        parts = self._filled(text, listing.file) if self._inspect is None else None
        findings = None
        if parts is None:
            root, parts = self._parts(text, listing.file)
            findings = None if self._inspect is None else self._inspect(root)
        if self.kept is not None and self.kept.keeps:
            data = portable.packed(parts, self._vocabulary.readers)
            if data is not None:
                self.kept.put(text, data, findings)
                # Code that was packed holds on to a copy of its bytes for ever; what is unpacked does not.
                parts = portable.unpacked(data, self._vocabulary.readers)
        return self._program(listing, parts, findings)

    def _parts(self, text: str, file: str) -> tuple[Node, portable.Parts]:
        root, found = self._checked(text)
        generated = self._generated(text, root)
        code = codegen.compiled(generated.definition, file)
        identifiers, references = frozenset(found.identifiers), frozenset(found.references)
        return root, (
            code,
            generated.constants,
            str(root.type),
            identifiers,
            references,
            generated.uses_now,
        )

    def _filled(self, text: str, file: str) -> portable.Parts | None:
        """Return *text* compiled by way of another of its shape, ``None`` if that is not possible."""
        outline = shapes.outline(text)
        if outline is None:
            return None
        try:
            known = self._shapes[outline.left]
        except KeyError:
            if len(self._shapes) >= shapes.REMEMBERED:
                self._shapes.clear()
            self._shapes[outline.left] = None
            return None
        if known is None:
            known = self._shapes[outline.left] = self._shape(text, outline)
        shape, parts = known
        if shape is None or parts is None:
            return None
        return (shape.filled(outline.literals, file), *parts[1:])

    def _shape(self, text: str, outline: shapes.Outline) -> tuple[shapes.Shape | None, portable.Parts | None]:
        """Compile a shape that has come a second time."""
        stand_ins = outline.stand_ins()
        try:
            root, parts = self._parts(outline.with_constants(text, stand_ins), "<cel>")
        except CompileError:
            return None, None  # then neither is any other text of this shape valid; each says so itself
        return shapes.shape(root, parts[0], parts[1], stand_ins), parts

    def _unpacked(self, text: str, kept: KeptPrograms | None) -> Program | None:
        """Return what *text* was compiled to before, ``None`` if that is not kept."""
        found = None if kept is None else kept.get(text)
        if found is None:
            return None
        data, findings = found
        try:
            parts = portable.unpacked(data, self._vocabulary.readers)
        except Exception:  # whatever it is that was kept, it is no expression
            logger.warning("a compiled expression that was kept cannot be used", exc_info=True)
            return None
        return self._program(Listing(parts[0].co_filename, text), parts, findings)

    def _program(self, listing: Listing, parts: portable.Parts, findings: Any) -> Program:
        code, constants, result_type, identifiers, references, uses_now = parts
        function = codegen.function(code, GLOBALS, (listing, *constants))
        return Program(
            function,
            listing,
            _shared(result_type),
            _shared(identifiers),
            _shared(references),
            uses_now,
            self,
            findings,
        )

    def nodes(self, text: str) -> Node:
        """Return the checked syntax tree of *text*, made again: programs do not keep theirs."""
        return self._checked(text)[0]

    def dump(self, text: str) -> str:
        """Return the Python that *text* is compiled to."""
        return ast.unparse(self._generated(text, self._checked(text)[0]).definition)

    def _checked(self, text: str) -> tuple[Node, Survey]:
        root = self._checker.check(text)
        found = survey(root, self._namespaces)
        if found.mistakes:
            raise CompileError(_issue(text, mistake.span, mistake.message) for mistake in found.mistakes)
        return root, found

    def _generated(self, text: str, root: Node) -> Generated:
        try:
            return codegen.generate(root, self._vocabulary)
        except codegen.UnsupportedError as error:
            raise CompileError([_issue(text, error.node.span, str(error))]) from None
        except RecursionError:
            raise CompileError([Issue(1, 1, "expression is nested too deeply")]) from None


@functools.lru_cache(maxsize=4_096)
def _shared(value: T) -> T:
    """Return an equal value, the same for all expressions: most use the same few attributes."""
    return value


def _file(text: str) -> str:
    """Return the name of the file that code of *text* says it stands in: the same in every process."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=10).digest()
    return f"<cel {int.from_bytes(digest)}>"


def _issue(text: str, span: Span, message: str) -> Issue:
    lines = text.split("\n")
    return Issue(span.line, _characters(lines, span.line, span.column) + 1, message)


def _characters(lines: Sequence[str], line: int, column: int) -> int:
    """Return a column of UTF-8 bytes as a count of characters."""
    return len(lines[line - 1].encode()[:column].decode(errors="ignore"))


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Program:
    """What compiling a text gives, shared by all expressions of that text."""

    function: Callable[[object], Any]
    listing: Listing
    result_type: str
    identifiers: frozenset[str]
    references: frozenset[tuple[str, ...]]
    uses_now: bool
    environment: Environment
    findings: Any = None


class Expression:
    """A compiled expression.

    *text* is what it was compiled from, *name* how the caller calls it. :attr:`function` takes one object
    that has an attribute for each variable, and ``now`` when :attr:`uses_now`; it returns a CEL value or
    raises :class:`~engine.cel.values.EvaluationError`, nothing else.
    """

    __slots__ = ("__weakref__", "_program", "function", "name", "text")

    def __init__(self, text: str, name: str, program: Program) -> None:
        self.text = text
        self.name = name
        self.function = program.function
        self._program = program

    @property
    def result_type(self) -> str:
        """The type of the value as CEL text: ``bool``, ``dyn``, ``list(string)``."""
        return self._program.result_type

    @property
    def identifiers(self) -> frozenset[str]:
        """The variables that the expression uses."""
        return self._program.identifiers

    @property
    def references(self) -> frozenset[tuple[str, ...]]:
        """Paths selected from variables: ``("R", "attr", "region")``."""
        return self._program.references

    @property
    def uses_now(self) -> bool:
        """Whether the time of the check is asked for."""
        return self._program.uses_now

    @property
    def findings(self) -> Any:
        """What the environment's *inspect* said, ``None`` when it has none."""
        return self._program.findings

    @property
    def nodes(self) -> Node:
        """The checked syntax tree; it is made anew each time, so keep it if you need it again."""
        return self._program.environment.nodes(self.text)

    def dump(self) -> str:
        """Return the generated Python."""
        return self._program.environment.dump(self.text)

    def excerpt(self, span: Span) -> str:
        """Return the line of the text that *span* begins in, with carets under the span."""
        line = self.text.split("\n")[span.line - 1]
        encoded = line.encode()
        start = len(encoded[: span.column].decode(errors="ignore"))
        ends_here = span.end_line == span.line
        end = len(encoded[: span.end_column].decode(errors="ignore")) if ends_here else len(line)
        return _underlined(line, start, end)

    def locate(self, error: BaseException) -> Place:
        """Where in the text an *error* that :attr:`function` raised comes from."""
        line, column, end_line, end_column = _failing(error, self._program.listing.file)
        lines = self.text.split("\n")
        before = sum(len(known) + 1 for known in lines[: line - 1])
        start = before + _characters(lines, line, column)
        end = before + (_characters(lines, line, end_column) if end_line == line else len(lines[line - 1]))
        start, end = Source(self.text).balanced(start, end)
        start = max(start, before)
        return Place(line, start - before + 1, _underlined(lines[line - 1], start - before, end - before))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text!r}>"


def _failing(error: BaseException, file: str) -> tuple[int, int, int, int]:
    """Return where *error* left generated code: line and column of the last instruction, and their ends."""
    found = (1, 0, 1, 0)
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            position = next(itertools.islice(step.tb_frame.f_code.co_positions(), step.tb_lasti // 2, None))
            line, end_line, column, end_column = position
            found = (line or 1, column or 0, end_line or line or 1, end_column or 0)
        step = step.tb_next
    return found


MAX_EXCERPT = 120
"""Characters of a line that an excerpt shows at most."""


def _underlined(line: str, start: int, end: int) -> str:
    """Return the *line*, and under it carets from *start* to *end*; of a long line, the part that matters."""
    first = max(0, min(start - MAX_EXCERPT // 3, len(line) - MAX_EXCERPT))
    shown = line[first : first + MAX_EXCERPT]
    width = max(1, min(end, first + MAX_EXCERPT) - start)
    return f"{shown}\n{' ' * (start - first)}{'^' * width}"
