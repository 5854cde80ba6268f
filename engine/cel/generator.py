"""What generating code consists of: parts, names, blocks, scopes - and the nodes that need nothing more.

Every Python node carries the place of the CEL text it came from, so that a traceback underlines the failing
part of the expression. A part is a Python expression; what cannot be one becomes statements before it.
"""

from __future__ import annotations

import ast
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.cel import nodes, wellknown
from engine.cel.nodes import BOOL, DOUBLE, DURATION, DYN, INT, NULL, TIMESTAMP, UINT, Node, Type
from engine.cel.syntax import Syntax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from engine.cel.records import Reader, Record

WRITABLE = frozenset({bool, int, float, str, bytes, type(None)})
"""Classes of constants that Python can write."""

SMALL = frozenset({BOOL, DOUBLE, DURATION, INT, NULL, TIMESTAMP, UINT})
"""Types whose values take no time to go through."""

NATIVE = {"list": "native_list", "map": "native_map"}
"""The functions that make an ordinary value of a raw one."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of generated code that has a value.

    *total* says that evaluating it cannot fail. A *raw* value is as the activation holds it: a record's
    object, a tuple, any mapping; it has to be made an ordinary value before it goes anywhere but into a
    selection or a loop.
    """

    tree: ast.expr
    type: Type
    total: bool = False
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Local:
    """A variable of a macro or of ``cel.bind`` in the generated code.

    *failure* names the variable that holds the error of a binding that could not be computed: it counts only
    when the name is used.
    """

    name: str
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What generated code can refer to.

    *functions* maps the CEL name of a function to the global name of its Python function, *readers* each
    record's fields to what reads them from its object.
    """

    records: Mapping[str, Record]
    readers: Mapping[str, Mapping[str, Reader]]
    namespaces: frozenset[str]
    functions: Mapping[str, str]
    needs_now: frozenset[str]


@dataclass(frozen=True, slots=True)
class Generated:
    """The function as Python syntax, and the constants that its parameters after the second are bound to."""

    definition: ast.FunctionDef
    constants: tuple[object, ...]
    uses_now: bool


class UnsupportedError(Exception):
    """An expression that the checker accepts and that there is no code for."""

    def __init__(self, node: Node, message: str) -> None:
        super().__init__(message)
        self.node = node


@dataclass(slots=True)
class _Frame:
    """One Python function while it is generated."""

    body: list[ast.stmt] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    blocks: int = 1
    uses_budget: bool = False


class Generator:
    """Generates one function. *calls* and *loops* know how each CEL function and macro becomes Python.

    *loops* counts the loops around the current place, *elements* are the variables of the innermost one.
    """

    keeps_failures = True
    """What CEL says to absorb is absorbed; else each failure ends the function (:mod:`engine.cel.inline`)."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        calls: Mapping[str, Callable[[Generator, nodes.Call], Part]],
        comprehension: Callable[[Generator, nodes.Comprehension], Part],
    ) -> None:
        self.vocabulary = vocabulary
        self.loops = 0
        self.elements: frozenset[str] = frozenset()
        self._calls = calls
        self._comprehension = comprehension
        self._frame = _Frame()
        self._scope: Mapping[str, Local] = {}
        self._constants: dict[str, object] = {}
        self._count = 0
        self._uses_now = False

    # --- functions ------------------------------------------------------------------------------------------

    def function(self, root: Node) -> Generated:
        """Generate the whole function: one ``try`` around everything, which translates what goes wrong."""
        at = Syntax(root.span)
        self._return(at, self.value(root))
        frame = self._frame
        if frame.uses_budget:
            frame.body.insert(0, at.assign("budget", at.name("MAX_ITERATIONS")))
        translated = at.fail(at.call("failure", at.name("error"), at.name("source")), at.constant(None))
        guarded = at.guard(frame.body, "error", [*_forget(at, frame.failures), translated])
        parameters = ["activation", "source", *self._constants]
        definition = at.function("expression", parameters, [*_forget(at, frame.failures), guarded])
        return Generated(definition, tuple(self._constants.values()), self._uses_now)

    def outlined(self, node: Node, evaluate: Callable[[Node], Part]) -> Part:
        """Move *node* to a function inside of the function: its blocks would be too many for Python."""
        at = Syntax(node.span)
        name = self.fresh("part")
        outer, self._frame = self._frame, _Frame()
        part = evaluate(node)
        self._return(at, part)
        inner, self._frame = self._frame, outer
        shared = [at.shared("budget")] if inner.uses_budget else []
        outer.uses_budget = outer.uses_budget or inner.uses_budget
        self.add(at.function(name, [], [*shared, *_forget(at, inner.failures), *inner.body]))
        return Part(at.call(name), part.type)

    def _return(self, at: Syntax, part: Part) -> None:
        """Return the value, and let go of failures: they hold tracebacks, those the frame, that them."""
        if self._frame.failures:
            self.add(
                at.assign("result", part.tree), *_forget(at, self._frame.failures), at.give(at.name("result"))
            )
        else:
            self.add(at.give(part.tree))

    # --- names, blocks, scopes ------------------------------------------------------------------------------

    def fresh(self, stem: str) -> str:
        """Return a name that nothing else in the function has."""
        self._count += 1
        return f"{re.sub('[^A-Za-z0-9_]', '', stem)}_{self._count}"

    def constant(self, value: object) -> str:
        """Return the name of a parameter that is bound to *value*."""
        name = self.fresh("constant")
        self._constants[name] = value
        return name

    def failure(self) -> str:
        """Return the name of a variable for a failure, which is ``None`` at first."""
        name = self.fresh("failure")
        self._frame.failures.append(name)
        return name

    def forget_in_loop(self, at: Syntax, failure: str) -> None:
        """Set a failure back to ``None`` where the same code runs again."""
        if self.loops:
            self.add(at.assign(failure, at.constant(None)))

    def charged(self, at: Syntax, part: Part, steps: str = "steps") -> Part:
        """Evaluate what is gone through in a loop, and take the *steps* that this costs off the budget."""
        if not self.loops:
            return part
        held = self.fresh("held")
        self._frame.uses_budget = True
        exceeded = at.compare(at.name("budget"), ast.Lt(), at.constant(0))
        self.add(
            at.assign(held, part.tree),
            at.reduce("budget", at.call(steps, at.name(held))),
            at.when(exceeded, [at.evaluate(at.call("exhausted"))]),
        )
        return Part(at.name(held), part.type, total=True, raw=part.raw)

    def gone_through(self, node: Node) -> Part:
        """Generate a value that a function goes through from end to end.

        What is part of the element that the innermost loop is at costs nothing: all elements together are no
        larger than the data. Anything else is gone through once for each element.
        """
        part = self.value(node)
        free = isinstance(node, nodes.Const) or part.type in SMALL or self.is_element(node)
        return part if free else self.charged(Syntax(node.span), part)

    def searched(self, node: Node) -> Part:
        """Generate a container that ``in`` searches; only a list has to be gone through."""
        part = self.operand(node)
        free = part.type.name == "map" or self.is_element(node)
        return part if free else self.charged(Syntax(node.span), part, "list_steps")

    def is_element(self, node: Node) -> bool:
        """Tell whether *node* is selected from the element that the innermost loop is at."""
        while isinstance(node, nodes.Select):
            node = node.operand
        return isinstance(node, nodes.Ident) and node.name in self.elements and not node.rooted

    @property
    def blocks(self) -> int:
        """How many blocks of Python are around the current place."""
        return self._frame.blocks

    def add(self, *statements: ast.stmt) -> None:
        """Add statements to the current block."""
        self._frame.body += statements

    @contextmanager
    def captured(self, *, blocks: int = 0) -> Iterator[list[ast.stmt]]:
        """Collect the statements made inside, which will stand *blocks* deeper."""
        frame = self._frame
        outer, frame.body = frame.body, []
        frame.blocks += blocks
        try:
            yield frame.body
        finally:
            frame.body = outer
            frame.blocks -= blocks

    @contextmanager
    def bound(self, names: Mapping[str, Local]) -> Iterator[None]:
        """Let the *names* of the expression mean local variables inside."""
        outer, self._scope = self._scope, {**self._scope, **names}
        try:
            yield
        finally:
            self._scope = outer

    # --- values ---------------------------------------------------------------------------------------------

    def operand(self, node: Node) -> Part:
        """Generate the value of *node*, possibly raw."""
        generate: Callable[[Generator, Any], Part] = NODES[type(node)]
        return generate(self, node)

    def value(self, node: Node) -> Part:
        """Generate the value of *node* as an ordinary CEL value."""
        part = self.operand(node)
        if not part.raw:
            return part
        at, name = Syntax(node.span), part.type.name
        if name not in self.vocabulary.records:
            return Part(at.call(NATIVE[name], part.tree), part.type, part.total)
        fields = at.name(self.constant(self.vocabulary.readers[name]))
        return Part(at.call("record", at.constant(name), fields, part.tree), part.type, part.total)

    def values(self, several: Sequence[Node]) -> list[Part]:
        """Generate the values of *several* nodes, which are evaluated in order."""
        return self.in_order([(self.value, node) for node in several])

    def in_order(self, several: Sequence[tuple[Callable[[Node], Part], Node]]) -> list[Part]:
        """Generate *several* nodes, each in its way (:meth:`value`, :meth:`operand`), evaluated in order."""
        parts: list[Part] = []
        for generate, node in several:
            with self.captured() as statements:
                part = generate(node)
            if statements:
                parts = [self._evaluated(Syntax(node.span), before) for before in parts]
                self.add(*statements)
            parts.append(part)
        return parts

    def _evaluated(self, at: Syntax, part: Part) -> Part:
        """Evaluate a part before the statements that follow: users see which failure comes first."""
        if part.total:
            return part
        held = self.fresh("held")
        self.add(at.assign(held, part.tree))
        return Part(at.name(held), part.type, total=True, raw=part.raw)

    def truth(self, node: Node) -> Part:
        """Generate the value of *node*, which has to be a bool; one that is ``dyn`` is checked."""
        part = self.value(node)
        if part.type == BOOL:
            return part
        at, held = Syntax(node.span), self.fresh("held")
        check = at.is_a(at.named(held, part.tree), "bool")
        return Part(at.choose(check, at.name(held), at.call("no_such_overload")), BOOL)

    def now(self, at: Syntax) -> ast.expr:
        """Generate the time of the check."""
        self._uses_now = True
        return at.attribute(at.name("activation"), "now")

    def clock(self, at: Syntax) -> ast.expr:
        """Generate what tells the time of the check, for a function that may fail before it asks."""
        self._uses_now = True
        return at.name("activation")

    # --- nodes ----------------------------------------------------------------------------------------------

    def const(self, node: nodes.Const) -> Part:
        """Generate a literal."""
        at, value = Syntax(node.span), node.value
        is_finite = not isinstance(value, float) or value - value == 0.0
        if value.__class__ in WRITABLE and is_finite:
            return Part(at.constant(value), node.type, total=True)
        return Part(at.name(self.constant(value)), node.type, total=True)

    def ident(self, node: nodes.Ident) -> Part:
        """Generate a variable, of a macro or of the activation."""
        at = Syntax(node.span)
        local = None if node.rooted else self._scope.get(node.name)
        if local is None:
            tree = at.attribute(at.name("activation"), node.name)
            total = node.type.name in self.vocabulary.records or self.is_namespace(node)
            return Part(tree, node.type, total, raw=self.is_raw(node.type))
        if not local.failure:
            return Part(at.name(local.name), node.type, total=True)
        failed = at.name(local.failure)
        succeeded = at.compare(failed, ast.Is(), at.constant(None))
        return Part(at.choose(succeeded, at.name(local.name), at.call("fail", failed)), node.type)

    def is_raw(self, kind: Type) -> bool:
        """Tell whether a value of a type may be raw where the activation or a record holds it."""
        return kind.name in NATIVE or kind.name in self.vocabulary.records

    def is_namespace(self, node: Node) -> bool:
        """Tell whether *node* is ``V``, ``C``, ``G`` or the like."""
        return (
            isinstance(node, nodes.Ident)
            and node.name in self.vocabulary.namespaces
            and (node.rooted or node.name not in self._scope)
        )

    def select(self, node: nodes.Select) -> Part:
        """Generate ``operand.field`` or ``has(operand.field)``."""
        at = Syntax(node.span)
        operand = self.operand(node.operand)
        if operand.raw and operand.type.name in self.vocabulary.records:
            return self._field(node, operand)
        if node.test_only:
            return self._presence(node, operand)
        if operand.type.name == "optional_type":
            return Part(at.call("select_optional", operand.tree, at.constant(node.field)), node.type)
        if operand.type.name == "map" or self.is_namespace(node.operand):
            return Part(subscript(at, operand.tree, at.constant(node.field)), node.type)
        return self.selected(at, operand, node.field, node.type)

    def selected(self, at: Syntax, operand: Part, field: str, kind: Type) -> Part:
        """Generate the selection of a field from what is most often a ``dict``."""
        held, name = self.fresh("held"), at.constant(field)
        check = at.is_a(at.named(held, operand.tree), "dict")
        found = at.subscript(at.name(held), name)
        return Part(at.choose(check, found, at.call("select", at.name(held), name)), kind)

    def _field(self, node: nodes.Select, operand: Part) -> Part:
        """Generate a field of a record, an attribute of its object; ``has``: whether it is set."""
        at = Syntax(node.span)
        type_text, attribute = self.vocabulary.records[operand.type.name].fields[node.field]
        tree = at.attribute(operand.tree, attribute)
        if not node.test_only:
            return Part(tree, node.type, operand.total, raw=self.is_raw(node.type))
        if type_text in self.vocabulary.records:
            return Part(at.compare(tree, ast.IsNot(), at.constant(None)), BOOL, operand.total)
        return Part(at.opposite(at.opposite(tree)), BOOL, operand.total)

    def _presence(self, node: nodes.Select, operand: Part) -> Part:
        at = Syntax(node.span)
        name = at.constant(node.field)
        if operand.type.name == "map" or self.is_namespace(node.operand):
            return Part(at.compare(name, ast.In(), operand.tree), BOOL, operand.total)
        if operand.type != DYN:
            return Part(at.call("present", operand.tree, name), BOOL)
        held = self.fresh("held")
        check = at.is_a(at.named(held, operand.tree), "dict")
        found = at.compare(name, ast.In(), at.name(held))
        return Part(at.choose(check, found, at.call("present", at.name(held), name)), BOOL)

    def list_literal(self, node: nodes.ListLiteral) -> Part:
        """Generate ``[a, b]``."""
        at, parts = Syntax(node.span), self.values(node.elements)
        made = at.list([part.tree for part in parts])
        if node.optional:
            return Part(at.call("make_list", made, at.name(self.constant(node.optional))), node.type)
        return Part(made, node.type, are_total(parts))

    def map_literal(self, node: nodes.MapLiteral) -> Part:
        """Generate ``{a: b}``; a ``dict`` display only if its keys are certainly different texts."""
        at = Syntax(node.span)
        if not any(entry.optional for entry in node.entries) and _are_distinct_texts(node.entries):
            keys = [self.value(entry.key).tree for entry in node.entries]
            values = self.values([entry.value for entry in node.entries])
            return Part(at.dict(keys, [value.tree for value in values]), node.type, are_total(values))
        return Part(self._made_map(at, node.entries), node.type)

    def _made_map(self, at: Syntax, entries: Sequence[nodes.Entry]) -> ast.expr:
        optional = frozenset(place for place, entry in enumerate(entries) if entry.optional)
        parts = self.values([node for entry in entries for node in (entry.key, entry.value)])
        trees = [part.tree for part in parts]
        pairs = [at.tuple(list(pair)) for pair in zip(trees[::2], trees[1::2], strict=True)]
        return at.call("make_map", at.list(pairs), at.name(self.constant(optional)))

    def message(self, node: nodes.MessageLiteral) -> Part:
        """Generate a message of a well-known type, which is an ordinary value in CEL; there are no others."""
        at = Syntax(node.span)
        if node.name not in wellknown.MESSAGES:
            raise UnsupportedError(node, f"messages of type '{node.name}' cannot be made in an expression")
        return Part(
            at.call("make_message", at.constant(node.name), self._made_map(at, node.entries)), node.type
        )

    def call(self, node: nodes.Call) -> Part:
        """Generate a call: of what has Python of its own, or of a function of the library."""
        special = self._calls.get(node.function)
        return self.library_call(node) if special is None else special(self, node)

    def library_call(self, node: nodes.Call) -> Part:
        """Generate a call of the Python function behind a CEL function."""
        at = Syntax(node.span)
        function = self.vocabulary.functions.get(node.function)
        if function is None:
            raise UnsupportedError(node, f"unbound function: {node.function}")
        through = [self.gone_through] * len(node.arguments)
        if node.function in PATTERN_FUNCTIONS:
            through[1] = self.pattern
        parts = self.in_order(list(zip(through, node.arguments, strict=True)))
        trees = [part.tree for part in parts]
        if node.function in self.vocabulary.needs_now:
            trees.insert(0, self.clock(at))
        result = Part(at.call(function, *trees), node.type)
        # What a function makes may be far larger than what it was given: a loop must not pile that up.
        return result if node.type in SMALL else self.charged(at, result)

    def pattern(self, node: Node) -> Part:
        """Generate a regular expression; one that is met at run time costs more to compile than to match."""
        part = self.value(node)
        free = isinstance(node, nodes.Const)
        return part if free else self.charged(Syntax(node.span), part, "pattern_steps")

    def comprehension(self, node: nodes.Comprehension) -> Part:
        """Generate a macro or a binding."""
        return self._comprehension(self, node)


PATTERN_FUNCTIONS = frozenset({"matches", "regex.extract", "regex.extractAll", "regex.replace"})
"""Functions whose second argument is a regular expression."""

NODES: Mapping[type[Node], Callable[..., Part]] = {
    nodes.Call: Generator.call,
    nodes.Comprehension: Generator.comprehension,
    nodes.Const: Generator.const,
    nodes.Ident: Generator.ident,
    nodes.ListLiteral: Generator.list_literal,
    nodes.MapLiteral: Generator.map_literal,
    nodes.MessageLiteral: Generator.message,
    nodes.Select: Generator.select,
}


def are_total(parts: Sequence[Part]) -> bool:
    """Tell whether evaluating the *parts* cannot fail."""
    return all(part.total for part in parts)


def is_display(tree: ast.expr) -> bool:
    """Tell whether *tree* is a literal, of which Python warns that ``[]`` makes no sense."""
    return isinstance(tree, (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set))


def is_single(tree: ast.expr) -> bool:
    """Tell whether Python can ask ``is`` of *tree*: of other literals it warns that this makes no sense."""
    return not is_display(tree) or (isinstance(tree, ast.Constant) and tree.value.__class__ in SINGLE)


SINGLE = frozenset({type(None), bool})


def subscript(at: Syntax, container: ast.expr, key: ast.expr) -> ast.expr:
    """Generate ``container[key]`` for a key that is a string."""
    return at.call("index", container, key) if is_display(container) else at.subscript(container, key)


def _are_distinct_texts(entries: Sequence[nodes.Entry]) -> bool:
    keys = [entry.key for entry in entries]
    texts = {key.value for key in keys if isinstance(key, nodes.Const) and isinstance(key.value, str)}
    return len(texts) == len(keys)


def _forget(at: Syntax, failures: Sequence[str]) -> list[ast.stmt]:
    return [at.assign(name, at.constant(None)) for name in failures]
