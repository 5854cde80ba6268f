"""What every block of the configuration file has in common: strict keys, durations, environment, faults.

A block is a pydantic model. This module turns what pydantic says about a file into faults that a person can
act on: file, line, column, their words in backticks, and the key they probably meant.
"""

from __future__ import annotations

import datetime
import re
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from engine.document import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.document import Document, Fault

Path = tuple[str | int, ...]
"""Where a value is in the file: keys and indexes from the root."""

Complaint = tuple[Path, str]
"""What is wrong and where, relative to the block that says it."""

T = TypeVar("T")

FAULT = "fault"
"""The pydantic error type of messages that are worded for the user already."""


class Block(BaseModel):
    """A mapping in the file: lowerCamel keys, nothing unknown, nothing changed after loading."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=False, validate_by_alias=True
    )

    def _complaints(self) -> Iterable[Complaint]:
        """Say what is wrong with the block as a whole, when each of its keys is right by itself."""
        return ()

    @model_validator(mode="after")
    def _check_as_a_whole(self) -> Self:
        raise_all(self._complaints())
        return self


def raise_all(complaints: Iterable[Complaint]) -> None:
    """Raise every complaint at once, each at its place; nothing when there are none."""
    details = [detail(path, message) for path, message in complaints]
    if details:
        raise ValidationError.from_exception_data("configuration", details)


def detail(path: Path, message: str) -> InitErrorDetails:
    """One complaint, as pydantic takes it."""
    return InitErrorDetails(type=fault(message), loc=path, input=None)


def moved(error: ValidationError, path: Path) -> Iterator[InitErrorDetails]:
    """Give the same errors about lists of one, at *path* in the whole list."""
    for entry in error.errors(include_url=False, include_input=False):
        kind: Any = entry["type"]
        if kind == FAULT:
            kind = fault(entry["msg"])
        yield InitErrorDetails(
            type=kind, loc=(*path, *entry["loc"][1:]), input=None, ctx=entry.get("ctx", {})
        )


def fault(message: str) -> PydanticCustomError:
    """Make an error for a validator to raise; its place is the value that is being validated."""
    return PydanticCustomError(FAULT, "{message}", {"message": message})


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean `x`?)`` when *word* is close to a known one, else nothing."""
    near = did_you_mean(word, known)
    return f" ({near})" if near else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Word the message for a name that was not declared, with the near miss or what there is."""
    names = sorted(known)
    hint = suggestion(word, names)
    if not hint:
        hint = f" (there is {_listed(names)})" if names else " (none is declared)"
    return f"unknown {kind} `{word}`{hint}"


def _listed(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown}, ..."


# --- durations --------------------------------------------------------------------------------------------

_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)
_LONGEST = datetime.timedelta(days=3650)


def parse_duration(value: object) -> datetime.timedelta:
    """Read a duration written as Go's ``time.ParseDuration`` reads it: ``10s``, ``1m30s``, ``200ms``, ``0``.

    A negative duration has no meaning anywhere in the file and is refused, as is one above ten years.
    """
    text = "0s" if type(value) in {int, str} and str(value) == "0" else value
    if not isinstance(text, str) or len(text) > 64 or not _DURATION.fullmatch(text):
        raise fault(
            f"`{value}` is not a duration: write a number and a unit, such as `10s`, `1m30s` or `200ms`"
        )
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if seconds > _LONGEST.total_seconds():
        raise fault(f"`{value}` is longer than ten years")
    return datetime.timedelta(seconds=seconds)


def _above_zero(value: datetime.timedelta) -> datetime.timedelta:
    if not value:
        raise fault("must be longer than 0")
    return value


def not_empty(value: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse an empty list; unlike pydantic's own check, not because an entry in it was wrong."""
    if not value:
        raise fault("must not be empty")
    return value


NonEmpty = Annotated[str, Field(min_length=1)]
Duration = Annotated[datetime.timedelta, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[Duration, AfterValidator(_above_zero)]

# --- the environment --------------------------------------------------------------------------------------

_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}|\{)")


def fill(value: Any, environment: Mapping[str, str]) -> tuple[Any, list[Complaint]]:
    """Replace ``${NAME}`` and ``${NAME:default}`` in every text of *value*; ``$$`` is a literal ``$``.

    Returns the filled value and a complaint for each variable that is neither set nor has a default. What
    comes from the environment is never scanned again.
    """
    complaints: list[Complaint] = []
    return _filled(value, (), environment, complaints), complaints


def _filled(value: Any, path: Path, environment: Mapping[str, str], complaints: list[Complaint]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, (*path, key), environment, complaints) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, (*path, index), environment, complaints) for index, item in enumerate(value)]
    if not isinstance(value, str) or "$" not in value:
        return value

    def replacement(found: re.Match[str]) -> str:
        name, default = found.groups()
        if name is None:
            if found.group() == "$$":
                return "$"
            complaints.append(
                (path, "`${` needs a name and a `}`: write `${NAME}`, or `$$` for a literal `$`")
            )
            return ""
        if name not in environment and default is None:
            complaints.append(
                (path, f"environment variable `{name}` is not set: set it, or write `${{{name}:default}}`")
            )
        return environment.get(name, default or "")

    return _VARIABLE.sub(replacement, value)


# --- from pydantic's errors to faults ---------------------------------------------------------------------

_WORDING = {
    "missing": "`{key}` is required",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be `true` or `false`",
    "bool_parsing": "must be `true` or `false`",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match `{pattern}`",
    "too_long": "must have at most {max_length} entries",
}


def faults_of(
    error: ValidationError, model: type[BaseModel], document: Document, unset: Iterable[Path] = ()
) -> list[Fault]:
    """Word and place everything that pydantic found.

    A value at one of the paths in *unset* came from a variable that is not set; what is wrong with it is no
    news.
    """
    known = frozenset(unset)
    return [
        document.fault(_message(dict(entry), model), entry["loc"], key=entry["type"] == "extra_forbidden")
        for entry in error.errors(include_url=False)
        if entry["loc"] not in known or entry["type"] == "extra_forbidden"
    ]


def _message(entry: dict[str, Any], model: type[BaseModel]) -> str:
    kind, path, context = entry["type"], entry["loc"], entry.get("ctx", {})
    key = path[-1] if path else ""
    if kind == FAULT:
        return str(entry["msg"])
    if kind == "extra_forbidden":
        return f"unknown key `{key}`{suggestion(str(key), _keys_at(model, path[:-1]))}"
    if kind in _WORDING:
        context = {name: str(item).replace("'", "`") for name, item in context.items()}
        return _WORDING[kind].format(key=key, **context)
    text = str(entry["msg"])
    return text[:1].lower() + text[1:]


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """Give the keys that the block at *path* knows."""
    annotation: Any = model
    for step in path:
        annotation = _inside(annotation, step)
    return [
        field.alias or name
        for block in _alternatives(annotation)
        if isinstance(block, type) and issubclass(block, BaseModel)
        for name, field in block.model_fields.items()
    ]


def _inside(annotation: Any, step: str | int) -> Any:
    """Give the type of what *step* leads to, or None when the types do not say."""
    for alternative in _alternatives(annotation):
        if isinstance(alternative, type) and issubclass(alternative, BaseModel):
            for name, field in alternative.model_fields.items():
                if step in {name, field.alias}:
                    return field.annotation
        arguments = typing.get_args(alternative)
        if arguments:
            return arguments[-1] if typing.get_origin(alternative) is not tuple else arguments[0]
    return None


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    elif origin in {Union, types.UnionType}:
        for argument in typing.get_args(annotation):
            yield from _alternatives(argument)
    else:
        yield annotation
