"""CEL text to checked nodes: Google's parser and type checker in front, our node classes behind.

Macros are expanded, every node has a type, every name is resolved. What the checker leaves open is settled by
:mod:`engine.cel.checks`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cel_expr_python import cel  # type: ignore[import-untyped]  # the wheel has no py.typed
from google.protobuf import any_pb2

from engine.cel import overloads
from engine.cel.overloads import CROSS_TYPE_COMPARISONS, EXTENSIONS, configuration, opaque_types
from engine.cel.reader import CheckedExprClass, Reader
from engine.cel.records import Record, descriptors
from engine.cel.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.cel.library.declaration import Declaration
    from engine.cel.nodes import Node

MAX_LENGTH = 100_000
"""Longest expression text in code points: cel-go's own default."""


@dataclass(frozen=True, slots=True, order=True)
class Issue:
    """One mistake in an expression; *line* and *column* count from 1."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"


class CompileError(Exception):
    """The text is no valid expression; *issues* are in order of place."""

    def __init__(self, issues: Iterable[Issue]) -> None:
        self.issues = tuple(sorted(issues))
        super().__init__("; ".join(map(str, self.issues)))


class Checker:
    """Google's type checker, told of our variables, records and functions.

    *variables* maps identifiers to CEL type texts; *records* are types that those texts may name. Making one
    takes about 10 ms, so one is made for an environment, not for an expression.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        *,
        records: Sequence[Record] = (),
        declarations: Iterable[Declaration] = (),
        container: str = "",
        extensions: Sequence[str] = EXTENSIONS,
    ) -> None:
        self.variables = frozenset(variables)
        rows = (*declarations, *CROSS_TYPE_COMPARISONS)
        opaque = [Record(name, {}) for name in opaque_types(rows)]
        self.environment = cel.NewEnv(
            descriptor_pool=descriptors((*records, *opaque)),
            config=configuration(rows, extensions),
            variables={name: cel.Type(text) for name, text in variables.items()},
            extensions=overloads.extensions(rows),
            container=container,
        )

    def check(self, text: str) -> Node:
        """Parse and check *text*; raises :class:`CompileError`."""
        if len(text) > MAX_LENGTH:
            raise CompileError([Issue(1, 1, f"expression is longer than {MAX_LENGTH} characters")])
        if not _is_encodable(text):
            raise CompileError([Issue(1, 1, "expression is not valid Unicode text")])
        source = self.source(text)
        try:
            serialized = self.compiled(source.text)
        except RuntimeError as error:
            raise CompileError(_issues(str(error), source.text)) from None
        return self.read(any_pb2.Any.FromString(serialized).value, source)

    def source(self, text: str) -> Source:
        """Return what is compiled of *text*, which knows the places in it."""
        return Source(text)

    def compiled(self, text: str) -> bytes:
        """Return what Google's compiler makes of *text*: a serialized ``google.protobuf.Any``."""
        serialized: bytes = self.environment.compile(text).serialize()
        return serialized

    def read(self, data: bytes, source: Source) -> Node:
        """Return the nodes of a serialized ``cel.expr.CheckedExpr``."""
        message = CheckedExprClass.FromString(data)
        return Reader(message, source, self.variables).node(message.expr)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can smuggle it in
        return False
    return True


REPORTED = re.compile(r"^(?:INVALID_ARGUMENT: )?ERROR: <input>:(-?\d+):(-?\d+): (.*)$", re.MULTILINE)
STATUS = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
REWORDED = (
    (re.compile(r"^(undefined field '.*') not found in struct '.*'$"), r"\1"),
    (re.compile(r"^expression of type 'null_type' cannot be "), "expression of type 'null' cannot be "),
    (
        re.compile(r"^expression of type ('.*') cannot be the operand of a select operation$"),
        r"type \1 does not support field selection",
    ),
    (re.compile(r"^has\(\) argument must be a field selection$"), "invalid argument to has() macro"),
    (
        re.compile(r"^(?:filter|map)\(\) variable name must be a simple identifier$"),
        "argument is not an identifier",
    ),
    (re.compile(r"^\w+\(\) variable name must be a simple identifier$"), "argument must be a simple name"),
    (re.compile(r"\bgoogle\.protobuf\.Duration\b(?=.*\)'$)"), "duration"),
    (re.compile(r"\bgoogle\.protobuf\.Timestamp\b(?=.*\)'$)"), "timestamp"),
    (
        re.compile(
            r"^found no matching overload for '_(?:&&|\|\|)_' applied to '\((?:(?:bool|dyn), )?([^,]+).*\)'$"
        ),
        r"expected type 'bool' but found '\1'",
    ),
)
"""Where the C++ checker says it other than cel-go does."""

TOO_DEEP = re.compile(r"recursion (?:depth|limit)")


CONSEQUENCE = "'*error*'"
"""What the C++ checker says of an expression that is part of a mistake it has told already."""

UNDECLARED = re.compile(r"^(undeclared reference to ')(\.?\w+)((?:\.\w+)+)'")


def _issues(report: str, text: str) -> list[Issue]:
    """Return the checker's report, one issue a mistake; each is worded there as in cel-go."""
    if found := TOO_DEEP.search(report):
        depth = re.compile(r"\d+").search(report, found.end())
        return [Issue(1, 1, f"expression is nested too deeply: at most {depth[0] if depth else '?'} levels")]
    issues = [
        Issue(max(int(line), 1), max(int(column), 1), _reworded(STATUS.sub("", message), text))
        for line, column, message in REPORTED.findall(report)
        if CONSEQUENCE not in message
    ]
    return issues or [Issue(1, 1, STATUS.sub("", STATUS.sub("", report)))]


def _reworded(message: str, text: str) -> str:
    for pattern, wording in REWORDED:
        message = pattern.sub(wording, message)
    undeclared = UNDECLARED.match(message)
    if undeclared:
        _, first, rest = undeclared.groups()
        # For cel-go it is the variable that is not there; only the name of a message is told as a whole.
        if not re.search(rf"{re.escape(first + rest)}\s*\{{", text):
            return UNDECLARED.sub(r"\1\2'", message)
    return message
