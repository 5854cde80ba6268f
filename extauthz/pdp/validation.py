"""Whether a request keeps the rules of the API, and the refusal of one that does not.

The words are protovalidate's, which Cerbos answers with; the tests hold both side by side. What is right
costs one pass over the fields that have rules; only what is wrong gets a path and a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from extauthz.pdp import violations
from extauthz.pdp.errors import invalid
from extauthz.pdp.rules import matcher
from extauthz.pdp.schema import Field, Kind, Shape, message_type, once_per_class
from extauthz.pdp.violations import FieldPath, Violation, Violations, element

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from extauthz.pdp.violations import Rule

    Check = Callable[[Any], Sequence[Violation]]
    """Tells what is wrong with a value; paths begin at the message that the value stands in."""

MAX_VIOLATIONS: Final = 100
"""More are not told: an answer must not be many times as long as its request."""


def check(request: Any) -> None:
    """Refuse *request* if it does not keep the rules; raises :class:`~extauthz.pdp.errors.PdpError`."""
    found = _message_check(type(request))(request)
    if found:
        told = Violations(tuple(found[:MAX_VIOLATIONS]))
        raise invalid(str(told), told)


@once_per_class
def _message_check(cls: type[Any]) -> Check:
    """Make one function of the rules of a message and of all that is in it."""
    declared = message_type(cls)
    rules = declared.rules
    fields = [(index, _field_check(field)) for index, field in enumerate(declared.fields) if _ruled(field)]

    def check_message(value: Any) -> Sequence[Violation]:
        found = [Violation(rule_id=rule.id, message=rule.sentence) for rule in rules if not rule.holds(value)]
        for index, check_field in fields:
            if problems := check_field(value[index]):
                found += problems
                if len(found) >= MAX_VIOLATIONS:
                    break
        return found

    return check_message


def _ruled(field: Field) -> bool:
    return field.rules.checks_something or (field.message is not None and _has_rules(field.message))


@once_per_class
def _has_rules(cls: type[Any]) -> bool:
    declared = message_type(cls)
    return bool(declared.rules) or any(map(_ruled, declared.fields))


def _field_check(field: Field) -> Check:
    """Make the check of a field: that it is there, its own rules, those of the messages in it."""
    checks = [*_OWN_CHECKS[field.shape](field), *_inner_checks(field)]
    missing = [_broken(field, violations.REQUIRED, "value is required")] if field.rules.required else []
    message_itself = field.kind is Kind.MESSAGE and field.shape is Shape.ONE

    def check_field(value: Any) -> Sequence[Violation]:
        if value is None or (missing and not message_itself and not value):
            return missing
        found: list[Violation] = []
        for checks_value in checks:
            if problems := checks_value(value):
                found += problems
        return found

    return check_field


def _broken(field: Field, rule: Rule, message: str, key: int | str | None = None) -> Violation:
    for_key = True if rule is violations.KEY_MIN_LENGTH else None
    return Violation(FieldPath((element(field, key),)), rule.path, rule.id, message, for_key)


# --- a string ---------------------------------------------------------------------------------------------


def _string_checks(field: Field) -> list[Check]:
    rules = field.rules
    found: list[Check] = []
    if (longest := rules.max_length) is not None:
        too_long = [_broken(field, violations.MAX_LENGTH, _too_long(longest))]
        found.append(lambda value: too_long if len(value) > longest else ())
    if (least := rules.min_bytes) and field.kind is Kind.BYTES:
        too_short = [_broken(field, violations.MIN_BYTES, f"must be at least {least} bytes")]
        found.append(lambda value: too_short if len(value) < least else ())
    if rules.pattern:
        matches = matcher(rules.pattern).match
        problem = [_broken(field, violations.PATTERN, f"does not match regex pattern `{rules.pattern}`")]
        found.append(lambda value: () if matches(value) else problem)
    if rules.choices:
        told = f"must be in list [{', '.join(rules.choices)}]"
        unknown = [_broken(field, violations.CHOICES, told)]
        found.append(lambda value: () if value in rules.choices else unknown)
    return found


# --- a list -----------------------------------------------------------------------------------------------


def _list_checks(field: Field) -> list[Check]:
    rules = field.rules
    found: list[Check] = []
    if (least := rules.min_items) and not rules.required:
        too_few = [_broken(field, violations.MIN_ITEMS, f"must contain at least {least} item(s)")]
        found.append(lambda value: too_few if len(value) < least else ())
    if (most := rules.max_items) is not None:
        too_many = [_broken(field, violations.MAX_ITEMS, f"must contain no more than {most} item(s)")]
        found.append(lambda value: too_many if len(value) > most else ())
    if rules.unique:
        repeated = [_broken(field, violations.UNIQUE, "repeated value must contain unique items")]
        found.append(lambda value: () if len(set(value)) == len(value) else repeated)
    if rules.item_min_length:
        found.append(lambda value: _short_items(field, value) if "" in value else ())
    if (longest := rules.item_max_length) is not None:
        found.append(lambda value: _long_items(field, value, longest))
    return found


def _short_items(field: Field, items: Sequence[str]) -> list[Violation]:
    empty = [index for index, item in enumerate(items) if not item][:MAX_VIOLATIONS]
    return [_broken(field, violations.ITEM_MIN_LENGTH, _TOO_SHORT, index) for index in empty]


def _long_items(field: Field, items: Sequence[str], longest: int) -> list[Violation]:
    long = [index for index, item in enumerate(items) if len(item) > longest][:MAX_VIOLATIONS]
    return [_broken(field, violations.ITEM_MAX_LENGTH, _too_long(longest), index) for index in long]


def _too_long(longest: int) -> str:
    return f"must be at most {longest} characters"


_TOO_SHORT: Final = "must be at least 1 characters"


# --- a map ------------------------------------------------------------------------------------------------


def _map_checks(field: Field) -> list[Check]:
    if not field.rules.key_min_length:
        return []
    problem = [_broken(field, violations.KEY_MIN_LENGTH, _TOO_SHORT, "")]
    return [lambda value: problem if "" in value else ()]


_OWN_CHECKS: Final[Mapping[Shape, Callable[[Field], list[Check]]]] = {
    Shape.ONE: _string_checks,
    Shape.LIST: _list_checks,
    Shape.MAP: _map_checks,
}


# --- messages within --------------------------------------------------------------------------------------


def _inner_checks(field: Field) -> list[Check]:
    if field.message is None or not _has_rules(field.message):
        return []
    return [_INNER_CHECKS[field.shape](field, _message_check(field.message))]


def _one_within(field: Field, check_message: Check) -> Check:
    return lambda value: [_within(field, None, each) for each in check_message(value)]


def _items_within(field: Field, check_message: Check) -> Check:
    def check_items(items: Sequence[Any]) -> Sequence[Violation]:
        found: list[Violation] = []
        for index, item in enumerate(items):
            if problems := check_message(item):
                found += [_within(field, index, each) for each in problems]
                if len(found) >= MAX_VIOLATIONS:
                    break
        return found

    return check_items


def _entries_within(field: Field, check_message: Check) -> Check:
    def check_entries(entries: Mapping[str, Any]) -> Sequence[Violation]:
        found: list[Violation] = []
        for key, item in sorted(entries.items()):
            if problems := check_message(item):
                found += [_within(field, key, each) for each in problems]
                if len(found) >= MAX_VIOLATIONS:
                    break
        return found

    return check_entries


_INNER_CHECKS: Final[Mapping[Shape, Callable[[Field, Check], Check]]] = {
    Shape.ONE: _one_within,
    Shape.LIST: _items_within,
    Shape.MAP: _entries_within,
}


def _within(field: Field, key: int | str | None, violation: Violation) -> Violation:
    """Put the step to *field* before the path of a violation in it."""
    steps = violation.field.elements if violation.field is not None else ()
    for_key = False if field.shape is Shape.MAP and violation.for_key is None else violation.for_key
    return violation._replace(field=FieldPath((element(field, key), *steps)), for_key=for_key)
