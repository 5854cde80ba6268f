"""What a test suite says: typed values without behaviour.

They are Cerbos's ``TestSuite`` and ``TestFixture`` messages; :mod:`engine.verify.loading` reads them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.cel import Timestamp
    from engine.document import Fault
    from engine.model import AuxData, Effect, JsonValue, Principal, Resource

UNKNOWN = "Unknown"
"""The name of a suite that cannot be read (Cerbos's word)."""


class Unset(enum.Enum):
    """The expected value of an output of which only the source is given."""

    UNSET = ""


UNSET = Unset.UNSET


# -- what a suite says -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """How the engine is set up for tests; what is empty or false is as the engine has it.

    *now* is what ``now()`` says; without it a test that asks the time is in error. *globals*, when there are
    any, stand in for those of the engine.
    """

    now: Timestamp | None = None
    default_policy_version: str = ""
    default_scope: str = ""
    lenient_scope_search: bool = False
    strict_evaluation: bool = False
    globals: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class SuiteInput:
    """Who asks for what: every principal for every resource, all actions at once."""

    actions: tuple[str, ...]
    principals: tuple[str, ...] = ()
    principal_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_groups: tuple[str, ...] = ()
    aux_data: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedOutput:
    """One output that a rule is to give; *value* is :data:`UNSET` when the test does not say which."""

    source: str = ""
    value: JsonValue | Unset = UNSET


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedOutputs:
    """The outputs expected for one action."""

    action: str
    expected: tuple[ExpectedOutput, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """What is expected for some of the pairs of principals and resources."""

    actions: Mapping[str, Effect]
    outputs: tuple[ExpectedOutputs, ...] = ()
    principal: str = ""
    principals: tuple[str, ...] = ()
    principal_groups: tuple[str, ...] = ()
    resource: str = ""
    resources: tuple[str, ...] = ()
    resource_groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class SuiteTest:
    """One entry of ``tests``: a matrix of questions, and the answers to them."""

    name: str
    input: SuiteInput
    expected: tuple[Expectation, ...]
    description: str = ""
    skip: bool = False
    skip_reason: str = ""
    options: Options | None = None
    """Stands in for the options of the suite as a whole; nothing is merged."""


@dataclass(frozen=True, slots=True, eq=False)
class Fixtures:
    """Principals, resources and auxiliary data by name, and groups of them."""

    principals: Mapping[str, Principal] = field(default_factory=dict)
    principal_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resources: Mapping[str, Resource] = field(default_factory=dict)
    resource_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aux_data: Mapping[str, AuxData] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Suite:
    """A test suite; *shared* are the fixtures of the folder ``testdata`` beside it."""

    name: str
    tests: tuple[SuiteTest, ...]
    description: str = ""
    skip: bool = False
    skip_reason: str = ""
    options: Options | None = None
    principals: Mapping[str, Principal] = field(default_factory=dict)
    principal_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resources: Mapping[str, Resource] = field(default_factory=dict)
    resource_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aux_data: Mapping[str, AuxData] = field(default_factory=dict)
    file: str = ""
    shared: Fixtures = field(default_factory=Fixtures)


@dataclass(frozen=True, slots=True)
class BrokenSuite:
    """A suite that cannot be run: *error* says why in Cerbos's words, *faults* where and what to do."""

    file: str
    error: str
    name: str = UNKNOWN
    description: str = ""
    faults: tuple[Fault, ...] = ()


class SuiteError(Exception):
    """A file of tests that cannot be used: *text* in Cerbos's words, *faults* for people."""

    def __init__(self, text: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(text)
        self.text = text
        self.faults = faults
