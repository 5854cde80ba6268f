"""What decides which operands are evaluated, and whose failure counts: ``&&``, ``||``, ``?:``, macros.

In CEL an operand of ``&&`` that is false wins over one before it that failed, and an element for which
``exists`` is true over one that could not be tested. Failures are therefore kept and raised only when nothing
has absorbed them. A ``try`` costs nothing until something is raised, and operands that cannot fail need none:
those stay plain ``and`` and ``or``.
"""

from __future__ import annotations

import ast
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.cel import macros, nodes
from engine.cel.generator import Generator, Local, Part, are_total
from engine.cel.nodes import BOOL, Node
from engine.cel.syntax import Syntax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MAX_BLOCKS = 12
"""Python allows 20 blocks inside of each other; deeper operands move to a function of their own."""

# --- && and || ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand of ``&&`` or ``||``: the statements it needs, and its value."""

    statements: Sequence[ast.stmt]
    part: Part

    @property
    def total(self) -> bool:
        """Whether it cannot fail."""
        return not self.statements and self.part.total


def logic(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``&&`` or ``||``: the first operand that decides wins, even over one before it that failed."""
    at = Syntax(node.span)
    operands = [_operand(generator, operand) for operand in _flattened(node, node.function)]
    *before, last = operands
    if not generator.keeps_failures and any(operand.statements for operand in operands):
        return _stepwise(generator, node, operands)
    if generator.keeps_failures and (last.statements or not all(operand.total for operand in before)):
        return _absorbing(generator, node, operands)
    join = at.both if node.function == "_&&_" else at.either
    return Part(join(*(operand.part.tree for operand in operands)), BOOL, last.part.total)


def _flattened(node: Node, function: str) -> list[Node]:
    """Return the operands of a chain of ``&&`` or ``||``, which the parser hands over as a balanced tree."""
    if not isinstance(node, nodes.Call) or node.function != function:
        return [node]
    return [operand for argument in node.arguments for operand in _flattened(argument, function)]


def _operand(generator: Generator, node: Node) -> Operand:
    if generator.blocks >= MAX_BLOCKS:
        with generator.captured() as statements:
            part = generator.outlined(node, generator.truth)
        return Operand(statements, part)
    with generator.captured(blocks=1) as statements:
        part = generator.truth(node)
    return Operand(statements, part)


def _absorbing(generator: Generator, node: nodes.Call, operands: Sequence[Operand]) -> Part:
    at = Syntax(node.span)
    result, failure = generator.fresh("decided"), generator.failure()
    neutral = node.function == "_&&_"
    undecided = at.name(result) if neutral else at.opposite(at.name(result))
    generator.forget_in_loop(at, failure)
    for number, operand in enumerate(operands):
        evaluated: list[ast.stmt] = [*operand.statements, at.assign(result, operand.part.tree)]
        if not operand.total:
            absorb = [_keep(at, failure), at.assign(result, at.constant(neutral))]
            evaluated = [at.guard(evaluated, "error", absorb)]
        generator.add(*([at.when(undecided, evaluated)] if number else evaluated))
    generator.add(at.when(undecided, [_raise_kept(at, failure)]))
    return Part(at.name(result), BOOL, total=True)


def _stepwise(generator: Generator, node: nodes.Call, operands: Sequence[Operand]) -> Part:
    """Generate one operand after the other, because some need statements; none absorbs a failure."""
    at, result = Syntax(node.span), generator.fresh("decided")
    undecided = at.name(result) if node.function == "_&&_" else at.opposite(at.name(result))
    for number, operand in enumerate(operands):
        evaluated = [*operand.statements, at.assign(result, operand.part.tree)]
        generator.add(*([at.when(undecided, evaluated)] if number else evaluated))
    return Part(at.name(result), BOOL, total=True)


def _keep(at: Syntax, failure: str) -> ast.stmt:
    """Generate that the first failure is remembered."""
    return at.assign(failure, at.either(at.name(failure), at.name("error")))


def _raise_kept(at: Syntax, failure: str) -> ast.stmt:
    """Generate that a failure is raised which nothing absorbed."""
    kept = at.compare(at.name(failure), ast.IsNot(), at.constant(None))
    return at.when(kept, [at.fail(at.name(failure))])


# --- ?: and orValue -----------------------------------------------------------------------------------------


def conditional(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``condition ? then : otherwise``."""
    condition = generator.truth(node.arguments[0])
    with generator.captured() as then_statements:
        then = generator.value(node.arguments[1])
    with generator.captured() as other_statements:
        otherwise = generator.value(node.arguments[2])
    total = are_total((condition, then, otherwise))
    branches = Operand(then_statements, then), Operand(other_statements, otherwise)
    return _chosen(generator, node, Part(condition.tree, BOOL, total), branches)


def otherwise(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``or`` and ``orValue``: the second is evaluated only when the first holds nothing."""
    at, held = Syntax(node.span), generator.fresh("held")
    optional = generator.value(node.arguments[0])
    generator.add(at.assign(held, at.call("opened", optional.tree)))
    with generator.captured() as statements:
        other = generator.value(node.arguments[1])
    is_or = node.function == "or"
    present = at.name(held) if is_or else at.attribute(at.name(held), "value")
    absent = at.call("opened", other.tree) if is_or else other.tree
    condition = Part(at.attribute(at.name(held), "has_value"), BOOL, total=other.total and not is_or)
    branches = Operand([], Part(present, node.type)), Operand(statements, Part(absent, node.type))
    return _chosen(generator, node, condition, branches)


def _chosen(
    generator: Generator, node: nodes.Call, condition: Part, branches: tuple[Operand, Operand]
) -> Part:
    """Generate one of two branches; *condition* is total when all three are."""
    at, (then, other) = Syntax(node.span), branches
    if not then.statements and not other.statements:
        return Part(at.choose(condition.tree, then.part.tree, other.part.tree), node.type, condition.total)
    result = generator.fresh("chosen")
    first = [*then.statements, at.assign(result, then.part.tree)]
    second = [*other.statements, at.assign(result, other.part.tree)]
    generator.add(at.when(condition.tree, first, second))
    return Part(at.name(result), node.type, total=True)


def truth(generator: Generator, node: nodes.Call) -> Part:
    """Generate ``@not_strictly_false(x)``: failures are kept elsewhere, so it is ``x``."""
    return generator.truth(node.arguments[0])


# --- macros -------------------------------------------------------------------------------------------------


def comprehension(generator: Generator, node: nodes.Comprehension) -> Part:
    """Generate a macro or a binding."""
    if generator.blocks >= MAX_BLOCKS:
        return generator.outlined(node, generator.value)
    macro = macros.recognise(node)
    return MACROS[type(macro)](generator, node, macro)


def bind(generator: Generator, node: nodes.Comprehension, macro: macros.Bind) -> Part:
    """Generate ``cel.bind``: that the value could not be computed counts only where the name is used."""
    at = Syntax(node.span)
    name = generator.fresh(macro.name)
    with generator.captured(blocks=1) as statements:
        value = generator.value(macro.value)
    failure = ""
    assigned: list[ast.stmt] = [*statements, at.assign(name, value.tree)]
    if generator.keeps_failures and (statements or not value.total):
        failure = generator.failure()
        assigned.append(at.assign(failure, at.constant(None)))
        kept = [at.assign(failure, at.name("error")), at.assign(name, at.constant(None))]
        assigned = [at.guard(assigned, "error", kept)]
    generator.add(*assigned)
    with generator.bound({macro.name: Local(name, failure)}):
        return generator.value(macro.body)


@dataclass(slots=True)
class Loop:
    """A loop that is being generated; *unbroken* runs when nothing has ended it early."""

    body: list[ast.stmt]
    before: list[ast.stmt] = field(default_factory=list)
    unbroken: list[ast.stmt] = field(default_factory=list)


@contextmanager
def _looping(generator: Generator, node: nodes.Comprehension) -> Iterator[Loop]:
    """Generate the range of a loop, then collect its body."""
    at, over = Syntax(node.span), _range(generator, node)
    names = [node.variable, node.second_variable] if node.second_variable else [node.variable]
    targets = [generator.fresh(name) for name in names]
    bound = {name: Local(target) for name, target in zip(names, targets, strict=True)}
    generator.loops += 1
    outer, generator.elements = generator.elements, frozenset(names)
    with generator.bound(bound), generator.captured(blocks=2) as body:
        loop = Loop(body)
        yield loop
    generator.elements = outer
    generator.loops -= 1
    steps = at.call("pairs", over) if node.second_variable else over
    generator.add(*loop.before, at.loop(targets, steps, loop.body, loop.unbroken))


def _range(generator: Generator, node: nodes.Comprehension) -> ast.expr:
    """Generate what is looped over."""
    at, part = Syntax(node.range.span), generator.operand(node.range)
    tree = part.tree if part.type.name in {"list", "map"} else at.call("iterable", part.tree)
    return generator.charged(at, Part(tree, part.type, part.total, part.raw), "len").tree


def quantifier(generator: Generator, node: nodes.Comprehension, macro: macros.Quantifier) -> Part:
    """Generate ``exists`` or ``all``."""
    at = Syntax(node.span)
    result = generator.fresh("found" if macro.stops_at else "every")
    generator.add(at.assign(result, at.constant(not macro.stops_at)))
    with _looping(generator, node) as loop:
        predicate = generator.truth(macro.predicate)
        decided = predicate.tree if macro.stops_at else at.opposite(predicate.tree)
        stop = at.when(decided, [at.assign(result, at.constant(macro.stops_at)), at.stop()])
        if generator.keeps_failures and (loop.body or not predicate.total):
            failure = generator.failure()
            loop.before.append(at.assign(failure, at.constant(None)))
            stop = at.guard([*loop.body, stop], "error", [_keep(at, failure)])
            loop.unbroken.append(_raise_kept(at, failure))
            loop.body.clear()
        loop.body.append(stop)
    return Part(at.name(result), BOOL, total=True)


def count(generator: Generator, node: nodes.Comprehension, macro: macros.Count) -> Part:
    """Generate ``exists_one``."""
    at, counted = Syntax(node.span), generator.fresh("count")
    generator.add(at.assign(counted, at.constant(0)))
    with _looping(generator, node):
        predicate = generator.truth(macro.predicate)
        generator.add(at.when(predicate.tree, [at.reduce(counted, at.constant(-1))]))
    return Part(at.compare(at.name(counted), ast.Eq(), at.constant(1)), BOOL, total=True)


def collect(generator: Generator, node: nodes.Comprehension, macro: macros.Collect) -> Part:
    """Generate ``map``, ``filter``, ``transformList``."""
    at, made = Syntax(node.span), generator.fresh("made")
    generator.add(at.assign(made, at.list([])))
    with _looping(generator, node), _passing(generator, at, macro.predicate):
        item = generator.value(macro.item)
        generator.add(at.evaluate(at.call(at.attribute(at.name(made), "append"), item.tree)))
    return Part(at.name(made), node.type, total=True)


def insert(generator: Generator, node: nodes.Comprehension, macro: macros.Insert) -> Part:
    """Generate ``transformMap`` and ``transformMapEntry``."""
    at, made = Syntax(node.span), generator.fresh("made")
    generator.add(at.assign(made, at.dict([], [])))
    with _looping(generator, node), _passing(generator, at, macro.predicate):
        items = [part.tree for part in generator.values(macro.items)]
        function = "insert" if len(items) == 2 else "insert_all"
        generator.add(at.evaluate(at.call(function, at.name(made), *items)))
    return Part(at.name(made), node.type, total=True)


@contextmanager
def _passing(generator: Generator, at: Syntax, predicate: Node | None) -> Iterator[None]:
    """Collect what happens to the elements that pass the *predicate*."""
    if predicate is None:
        yield
        return
    condition = generator.truth(predicate)
    with generator.captured() as body:
        yield
    generator.add(at.when(condition.tree, body))


def fold(generator: Generator, node: nodes.Comprehension, _: None) -> Part:
    """Generate a loop that is no macro: an accumulator changes step by step while a condition holds."""
    at, folded = Syntax(node.span), generator.fresh("folded")
    start = generator.value(node.start)
    generator.add(at.assign(folded, start.tree))
    with generator.bound({node.accumulator: Local(folded)}):
        with _looping(generator, node):
            condition = generator.truth(node.condition)
            generator.add(at.when(at.opposite(condition.tree), [at.stop()]))
            step = generator.value(node.step)
            generator.add(at.assign(folded, step.tree))
        return generator.value(node.result)


MACROS: Mapping[type, Callable[..., Part]] = {
    macros.Bind: bind,
    macros.Collect: collect,
    macros.Count: count,
    macros.Insert: insert,
    macros.Quantifier: quantifier,
    type(None): fold,
}

CALLS: Mapping[str, Callable[[Generator, nodes.Call], Part]] = {
    "@not_strictly_false": truth,
    "_&&_": logic,
    "_?_:_": conditional,
    "_||_": logic,
    "or": otherwise,
    "orValue": otherwise,
}
"""CEL functions that do not evaluate all of their operands, or evaluate them although one has failed."""
