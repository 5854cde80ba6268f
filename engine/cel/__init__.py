"""The Common Expression Language, compiled to Python functions.

An :class:`Environment` knows the variables; it compiles a text once, and the :class:`Expression` evaluates as
fast as Python can. The language is that of Cerbos: the standard library, the extensions of cel-go, and
Cerbos's own functions.
"""

from engine.cel.environment import Environment, Expression, Place
from engine.cel.frontend import CompileError, Issue
from engine.cel.records import Record
from engine.cel.values import (
    NONE,
    Duration,
    EvaluationError,
    NoSuchOverload,
    Optional,
    RecordValue,
    Timestamp,
    TypeValue,
    UInt,
)

__all__ = [
    "NONE",
    "CompileError",
    "Duration",
    "Environment",
    "EvaluationError",
    "Expression",
    "Issue",
    "NoSuchOverload",
    "Optional",
    "Place",
    "Record",
    "RecordValue",
    "Timestamp",
    "TypeValue",
    "UInt",
]
