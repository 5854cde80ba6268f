"""Two sets of policies, asked the same: which decisions differ.

>>> from engine.comparison import compare, generated
>>> comparison = compare(old.table, new.table, generated(old.table, new.table, limit=2000))
>>> [str(change) for change in comparison.changes]

Questions come from test suites (:func:`from_suites`), from decision logs (:func:`from_decision_log`), or are
made of what the policies themselves speak of (:func:`generated`).
"""

from __future__ import annotations

from engine.comparison.cases import Case, from_suites
from engine.comparison.compare import Change, Comparison, Said, compare
from engine.comparison.decision_log import LogError, from_decision_log
from engine.comparison.generation import generated

__all__ = [
    "Case",
    "Change",
    "Comparison",
    "LogError",
    "Said",
    "compare",
    "from_decision_log",
    "from_suites",
    "generated",
]
