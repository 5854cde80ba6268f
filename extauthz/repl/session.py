"""A session: what was defined, what was loaded, and what an input does to it. No terminal in here.

The directives are Cerbos's (``cerbos repl``); ``:explain`` and ``:type`` are ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.text import Text
from rich.tree import Tree

from engine import policy as p
from engine.cel import CompileError, EvaluationError
from engine.definitions import identifier_fault
from engine.document import did_you_mean
from engine.literals import literal
from engine.model import json_value
from engine.outputs import to_json
from engine.rules import Settings
from extauthz.repl.evaluation import Evaluator, InputError, environment
from extauthz.repl.loaded import Loaded, LoadError
from extauthz.repl.special import ALIASES, ROOTS, Special, SpecialError, is_special

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from extauthz.repl.evaluation import Outcome
    from extauthz.repl.loaded import NumberedRule

LAST: Final = "_"
"""The variable that holds the last result."""


class Quit(Exception):  # noqa: N818 - not an error, the end of the session
    """The input asks to leave."""


class Directive(NamedTuple):
    """A directive: how it is written, what it does, and who does it."""

    usage: str
    summary: str
    run: Callable[[Session, str], list[RenderableType]]


class Session:
    """Everything that inputs define, and what they evaluate to."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.own: dict[str, Any] = {LAST: None}
        self.special = Special()
        self.loaded = Loaded()
        self._environment = environment(self.own)

    # -- inputs --------------------------------------------------------------------------------------------

    def handle(self, text: str) -> list[RenderableType]:
        """Do what an input says, and return what there is to see.

        Raises:
            InputError: the input cannot be used; nothing has changed.
            Quit: the input asks to leave.

        """
        text = text.strip()
        if not text:
            return []
        try:
            return self._directive(text[1:]) if text.startswith(":") else self._show_value(text)
        except (LoadError, SpecialError) as error:
            raise InputError(str(error)) from None

    def _directive(self, text: str) -> list[RenderableType]:
        name, _, rest = text.strip().partition(" ")
        directive = DIRECTIVES.get(name)
        if directive is None:
            hint = did_you_mean(name, DIRECTIVES) or "`:help` lists the directives"
            raise InputError(f"unknown directive `:{name}` ({hint})")
        return directive.run(self, rest.strip())

    def _show_value(self, text: str) -> list[RenderableType]:
        value = self.evaluate(text)
        self.own[LAST] = value
        return [_definition(LAST, literal(value))]

    def evaluate(self, text: str) -> Any:
        """Return the value of an expression; raises :class:`InputError`."""
        evaluator = self.evaluator()
        expression = evaluator.compile(text)
        failed = self.define_variables(evaluator)
        try:
            return evaluator.value(expression)
        except InputError as error:
            causes = [
                f"the variable `{path[1]}` has no value:\n{failed[path[1]]}"
                for path in sorted(expression.references)
                if len(path) > 1 and path[0] in ("V", "variables") and path[1] in failed
            ]
            raise InputError("\n".join([str(error), *causes])) from None

    def evaluator(self) -> Evaluator:
        """Return what evaluates by the variables as they are now."""
        return Evaluator(
            self.own,
            self.special.question,
            self.special.effective_derived_roles,
            environment=self._environment,
            constants={**self.loaded.constants, **self.special.get("C")},
            global_values=self.special.get("G"),
        )

    def define_variables(self, evaluator: Evaluator) -> dict[str, str]:
        """Give an evaluator the variables of the current policy and of ``:let``; return what failed."""
        return evaluator.define(self.loaded.variables, self.special.get("V"))

    # -- directives ----------------------------------------------------------------------------------------

    def let(self, rest: str) -> list[RenderableType]:
        """``:let name = value``."""
        name, equals, text = (part.strip() for part in rest.partition("="))
        if not name or not equals or not text:
            raise InputError("`:let` takes a name and a value: `:let x = 1 + 5`")
        path = name.split(".")
        if is_special(path[0]):
            self.special.set(path, self._document(text))
            return [_definition(name, literal(self._behind(path)))]
        self._check_name(name)
        value = self.evaluate(text)
        if name not in self.own:
            self._environment = environment([*self.own, name])
        self.own[name] = value
        return [_definition(name, literal(value))]

    def _check_name(self, name: str) -> None:
        fault = identifier_fault(name)
        if fault or name.startswith("__") or name == "now":
            reason = fault or f'"{name}" is taken'
            raise InputError(f"`{name}` cannot be a variable: {reason}")
        try:
            environment([name]).compile(name)
        except CompileError:
            raise InputError(f"`{name}` cannot be a variable: it is a word of the language") from None

    def _document(self, text: str) -> Any:
        """Read a value for a special variable: JSON, or an expression whose value has a JSON form."""
        try:
            return json_value(json.loads(text))
        except (ValueError, RecursionError):
            pass
        try:
            return to_json(self.evaluate(text))
        except EvaluationError as error:
            raise InputError(str(error)) from None

    def _behind(self, path: Sequence[str]) -> Any:
        found = self.special.get(path[0])
        for step in path[1:]:
            found = found.get(step, {})
        return found

    def show_variables(self, rest: str) -> list[RenderableType]:
        """``:vars``."""
        _takes_nothing("vars", rest)
        own = [_definition(name, literal(value)) for name, value in sorted(self.own.items())]
        special = [
            _definition(f"{short} ({'.'.join(path)})", literal(self.special.get(short)))
            for short, path in ALIASES.items()
            if short not in ("C", "V")
        ]
        extra = [
            _definition(root, literal(self.special.get(root)))
            for root in ("request", "runtime")
            if self.special.get(root)
        ]
        return [*own, *special, *self._policy_values(), *extra]

    def _policy_values(self) -> Iterator[RenderableType]:
        evaluator = self.evaluator()
        failed = self.define_variables(evaluator)
        constants = {**self.loaded.constants, **self.special.get("C")}
        yield _definition("C (constants)", literal(json_value(constants)))
        yield _definition("V (variables)", literal(evaluator.variables))
        for name, error in sorted(failed.items()):
            yield Text.assemble(f"V.{name} ", ("has no value:\n", "red"), error)

    def load(self, rest: str) -> list[RenderableType]:
        """``:load path``."""
        if not rest:
            raise InputError("`:load` takes the path of a policy, or of a directory of policies")
        loaded = self.loaded.load(Path(rest).expanduser())
        shown: list[RenderableType] = [Text(f"loaded {policy.key}") for policy in loaded]
        missing = self.loaded.missing_imports
        if missing:
            shown.append(Text(f"not loaded yet, but imported: {', '.join(missing)}", "yellow"))
        if self.loaded.variables:
            listed = "\n".join(f"  {name}: {text}" for name, text in self.loaded.variables.items())
            shown.append(Text(f"variables:\n{listed}"))
        return [*shown, *self.show_rules("")]

    def show_rules(self, rest: str) -> list[RenderableType]:
        """``:rules``."""
        _takes_nothing("rules", rest)
        rules = self.loaded.rules
        if not rules:
            return [Text("no loaded policy has a rule with a condition")]
        return [_rule(number, rule) for number, rule in enumerate(rules)]

    def execute(self, rest: str) -> list[RenderableType]:
        """``:exec #N``."""
        rules = self.loaded.rules
        number = rest.removeprefix("#").strip()
        if not number.isdecimal():
            raise InputError("`:exec` takes the number of a rule: `:exec #0` (`:rules` lists them)")
        if int(number) >= len(rules):
            known = f"the last is #{len(rules) - 1}" if rules else "none is loaded"
            raise InputError(f"there is no rule #{number} ({known})")
        return self._executed(rules[int(number)])

    def _executed(self, rule: NumberedRule) -> list[RenderableType]:
        self.loaded.see(rule.policy)
        evaluator = self.evaluator()
        failed = self.define_variables(evaluator)
        outcome = evaluator.outcome(rule.match)
        shown: list[RenderableType] = [_tree(outcome)]
        shown += [Text(f"V.{name} has no value:\n{error}", "yellow") for name, error in failed.items()]
        text = rule.said(activated=outcome.holds)
        if text:
            shown.append(_definition("output", literal(evaluator.value(evaluator.compile(text)))))
        return shown

    def explain(self, rest: str) -> list[RenderableType]:
        """``:explain action``."""
        from engine.explain import explain  # noqa: PLC0415 - most sessions never explain
        from engine.explain.text import text  # noqa: PLC0415 - the same

        actions = tuple(dict.fromkeys(rest.split()))
        if not actions:
            raise InputError("`:explain` takes one or more actions: `:explain view`")
        if not self.loaded.policies:
            raise InputError("there is nothing to ask: `:load` policies first")
        table = self.loaded.table(Settings(globals=self.special.get("G")))
        return [Text(text(explain(table, self.special.question._replace(actions=actions))))]

    def show_type(self, rest: str) -> list[RenderableType]:
        """``:type expression``."""
        if not rest:
            raise InputError("`:type` takes an expression")
        return [Text(self.evaluator().compile(rest).result_type)]

    def reset(self, rest: str) -> list[RenderableType]:
        """``:reset``."""
        _takes_nothing("reset", rest)
        self._forget()
        return []

    def help(self, rest: str) -> list[RenderableType]:
        """``:help``."""
        _takes_nothing("help", rest)
        width = max(len(directive.usage) for directive in DIRECTIVES.values())
        shown = dict.fromkeys(DIRECTIVES.values())
        lines = [f"  {directive.usage:<{width}}  {directive.summary}" for directive in shown]
        return [Text(_HELP_TEXT.format(directives="\n".join(lines), special=", ".join((*ALIASES, *ROOTS))))]

    def quit(self, rest: str) -> list[RenderableType]:
        """``:quit``."""
        _takes_nothing("quit", rest)
        raise Quit


_HELP = Directive(":help, :h", "show this", Session.help)
_QUIT = Directive(":quit, :q, :exit", "leave (so does Ctrl-D)", Session.quit)

DIRECTIVES: Final[Mapping[str, Directive]] = {
    "let": Directive(":let NAME = VALUE", "set a variable, or a part of P, R, request, C, V, G", Session.let),
    "vars": Directive(":vars", "show all variables", Session.show_variables),
    "load": Directive(":load PATH", "load a policy, or all policies of a directory", Session.load),
    "rules": Directive(":rules", "list the loaded rules that have a condition", Session.show_rules),
    "exec": Directive(":exec #N", "evaluate the condition of rule N, part by part", Session.execute),
    "explain": Directive(
        ":explain ACTION...", "ask the loaded policies whether P may, and why", Session.explain
    ),
    "type": Directive(":type EXPRESSION", "show the type that the checker finds", Session.show_type),
    "reset": Directive(":reset", "forget variables and policies", Session.reset),
    "help": _HELP,
    "h": _HELP,
    "quit": _QUIT,
    "q": _QUIT,
    "exit": _QUIT,
}

_HELP_TEXT: Final = """\
An expression is evaluated at once, and its value kept as `_`:

  1 + 5
  _ * 2
  "%d".format([_])

A line that ends in a backslash, or has a bracket open, goes on in the next one.

{directives}

{special}
are what policies see. They take JSON, in which numbers are doubles as in a request, or an expression.
Parts can be set alone:

  :let P = {{"id": "ann", "roles": ["user"], "attr": {{"region": "EMEA"}}}}
  :let R.kind = "expense"
  :let R.attr.amount = 1200

Values are printed as CEL writes them: 2 is an int, 2.0 a double, 2u a uint."""


def _takes_nothing(name: str, rest: str) -> None:
    if rest:
        raise InputError(f"`:{name}` takes nothing after it")


def _definition(name: str, value: str) -> Text:
    return Text.assemble((name, "bold"), " = ", value)


def _rule(number: int, rule: NumberedRule) -> RenderableType:
    label = Text.assemble(
        (f"#{number}", "bold"),
        f"  {rule.policy.key}#{rule.name}  ",
        (rule.place, "dim"),
        f"\n{rule.says} when",
    )
    return _with_parts(Tree(label), rule.match)


def _with_parts(tree: Tree, match: p.Match) -> Tree:
    if isinstance(match, p.Expr):
        tree.add(Text(match.text))
        return tree
    branch = tree.add(_WORDS[type(match)])
    for part in match.of:
        _with_parts(branch, part)
    return tree


_WORDS: Final[Mapping[type, str]] = {p.All: "all", p.Any_: "any", p.None_: "none"}


def _tree(outcome: Outcome) -> Tree:
    tree = Tree(_judged(outcome))
    for part in outcome.parts:
        tree.add(_tree(part))
    return tree


def _judged(outcome: Outcome) -> Text:
    word, colour = ("true", "green") if outcome.holds else ("false", "red")
    judged = Text.assemble(outcome.text, " ", (f"[{word}]", colour))
    if outcome.error:
        judged.append(f"\n{outcome.error}", "yellow")
    return judged
