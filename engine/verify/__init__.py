"""Policy tests: Cerbos's test suites, run on a rule table.

>>> from engine.verify import load_suites, run, suite_files
>>> results = run(engine.table, load_suites(suite_files("policies")))
>>> results.ok
True

:meth:`Runner.questions` yields what a suite asks, so that each question can be asked again and explained.
"""

from __future__ import annotations

from engine.verify.discovery import suite_files
from engine.verify.filters import Filter, FilterError, PatternError, Selection
from engine.verify.junit import junit
from engine.verify.loading import SuiteLoader, load_suites
from engine.verify.results import (
    ActionResult,
    CaseResult,
    Details,
    Failure,
    OutputFailure,
    PrincipalResult,
    ResourceResult,
    Result,
    Success,
    SuiteResult,
    Summary,
    TestResults,
    Trace,
)
from engine.verify.run import Config, Question, Runner, run
from engine.verify.suites import BrokenSuite, Suite

__all__ = [
    "ActionResult",
    "BrokenSuite",
    "CaseResult",
    "Config",
    "Details",
    "Failure",
    "Filter",
    "FilterError",
    "OutputFailure",
    "PatternError",
    "PrincipalResult",
    "Question",
    "ResourceResult",
    "Result",
    "Runner",
    "Selection",
    "Success",
    "Suite",
    "SuiteLoader",
    "SuiteResult",
    "Summary",
    "TestResults",
    "Trace",
    "junit",
    "load_suites",
    "run",
    "suite_files",
]
