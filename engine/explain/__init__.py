"""Explanations: the way to a decision, as data and as text."""

from engine.explain.explanation import Explanation
from engine.explain.watched import explain

__all__ = ["Explanation", "explain"]
