"""The ``math`` extension of cel-go: extremes, rounding, signs, bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from engine.cel.library.arguments import double, integer
from engine.cel.values import INT_MIN, UINT_MAX, EvaluationError, NoSuchOverload, UInt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

INT_BITS = 64
NUMERIC = frozenset({int, UInt, float})


def greatest(first: object, *others: object) -> Any:
    """Return the largest of one or two numbers, or of a list; the first of equal ones (``greatest``)."""
    return _extreme("math.@max", max, first, others)


def least(first: object, *others: object) -> Any:
    """Return the smallest of one or two numbers, or of a list; the first of equal ones (``least``)."""
    return _extreme("math.@min", min, first, others)


def _extreme(
    name: str, choose: Callable[[Sequence[Any]], Any], first: object, others: tuple[object, ...]
) -> Any:
    numbers = first if not others and isinstance(first, (list, tuple)) else (first, *others)
    if not numbers:
        raise EvaluationError(f"{name}(list) argument must not be empty")
    if any(type(number) not in NUMERIC for number in numbers):
        raise NoSuchOverload
    if len(numbers) > 1 and any(map(math.isnan, numbers)):
        raise EvaluationError(f"NaN values cannot be ordered: {name}")
    return choose(numbers)


def ceil(value: object) -> float:
    """Return the next double up without a fraction."""
    number = double(value)
    return math.copysign(math.ceil(number), number) if math.isfinite(number) else number


def floor(value: object) -> float:
    """Return the next double down without a fraction."""
    number = double(value)
    return math.copysign(math.floor(number), number) if math.isfinite(number) else number


def trunc(value: object) -> float:
    """Return the double without its fraction."""
    number = double(value)
    return math.copysign(math.trunc(number), number) if math.isfinite(number) else number


def round_half_away(value: object) -> float:
    """Return the nearest double without a fraction; halves go away from zero, unlike in Python."""
    number = double(value)
    if not math.isfinite(number):
        return number
    whole = math.trunc(number)
    # The difference is exact: a double with a fraction is below 2**53.
    away = 1 if abs(number - whole) >= 0.5 else 0
    return math.copysign(abs(whole) + away, number)


def absolute(value: object) -> Any:
    """Return the number without its sign; the smallest int has no counterpart and overflows."""
    kind = type(value)
    if kind not in NUMERIC:
        raise NoSuchOverload
    if kind is int and value == INT_MIN:
        raise EvaluationError("integer overflow")
    return value if kind is UInt else abs(value)  # type: ignore[arg-type]  # a number, by the check above


def sign(value: object) -> Any:
    """-1, 0 or 1 in the type of the argument; NaN stays NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NoSuchOverload
    if math.isnan(value):
        return value
    return type(value)((value > 0) - (value < 0))


def square_root(value: object) -> float:
    """Return the square root as a double; NaN of a negative number."""
    if type(value) not in NUMERIC:
        raise NoSuchOverload
    number = float(value)  # type: ignore[arg-type]  # a number, by the check above
    return math.sqrt(number) if number >= 0 else math.nan


def is_nan(value: object) -> bool:
    """Whether the double is not a number."""
    return math.isnan(double(value))


def is_infinite(value: object) -> bool:
    """Whether the double is one of the infinities."""
    return math.isinf(double(value))


def is_finite(value: object) -> bool:
    """Whether the double is neither infinite nor NaN."""
    return math.isfinite(double(value))


def _same_integers(first: object, second: object) -> type[int]:
    kind = type(first)
    if kind is type(second) and (kind is int or kind is UInt):
        return kind
    raise NoSuchOverload


def bit_and(first: Any, second: Any) -> int:
    """Bitwise and of two ints or two uints."""
    return _same_integers(first, second)(int(first) & int(second))


def bit_or(first: Any, second: Any) -> int:
    """Bitwise or of two ints or two uints."""
    return _same_integers(first, second)(int(first) | int(second))


def bit_xor(first: Any, second: Any) -> int:
    """Bitwise exclusive or of two ints or two uints."""
    return _same_integers(first, second)(int(first) ^ int(second))


def bit_not(value: Any) -> int:
    """All 64 bits inverted."""
    return UInt(int(value) ^ UINT_MAX) if _same_integers(value, value) is UInt else ~value


def shift_left(value: Any, count: object) -> int:
    """Return the 64 bits moved left; what leaves them is lost, an int may change its sign."""
    kind, places = _same_integers(value, value), _places("math.bitShiftLeft", count)
    bits = (int(value) << places) & UINT_MAX if places < INT_BITS else 0
    return kind(bits) if kind is UInt else _signed(bits)


def shift_right(value: Any, count: object) -> int:
    """Return the 64 bits moved right; zeros come in, also into negative ints."""
    kind, places = _same_integers(value, value), _places("math.bitShiftRight", count)
    bits = (int(value) & UINT_MAX) >> places if places < INT_BITS else 0
    return kind(bits) if kind is UInt else _signed(bits)


def _places(name: str, count: object) -> int:
    places = integer(count)
    if places < 0:
        raise EvaluationError(f"{name}() negative offset: {places}")
    return places


def _signed(bits: int) -> int:
    return bits - (1 << INT_BITS) if bits >> (INT_BITS - 1) else bits


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "math.@max": greatest,
    "math.@min": least,
    "math.ceil": ceil,
    "math.floor": floor,
    "math.round": round_half_away,
    "math.trunc": trunc,
    "math.abs": absolute,
    "math.sign": sign,
    "math.sqrt": square_root,
    "math.isNaN": is_nan,
    "math.isInf": is_infinite,
    "math.isFinite": is_finite,
    "math.bitAnd": bit_and,
    "math.bitOr": bit_or,
    "math.bitXor": bit_xor,
    "math.bitNot": bit_not,
    "math.bitShiftLeft": shift_left,
    "math.bitShiftRight": shift_right,
}
