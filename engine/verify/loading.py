"""Suites and fixtures from YAML and JSON text, each fault with its place.

The fields and their rules are those of Cerbos's ``TestSuite`` and ``TestFixture`` messages. A suite is a file
called ``*_test.yaml`` (``.yml``, ``.json``); what it does not define itself it may take from the folder
``testdata`` beside it, and from there only.
"""

from __future__ import annotations

import enum
import functools
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine import document as documents
from engine.fields import (
    Choice,
    Entries,
    Field,
    Many,
    Message,
    boolean,
    describe,
    ignored,
    json,
    matches,
    not_empty,
    some_text,
    text,
    unique,
)
from engine.model import EMPTY, AuxData, Effect, Principal, Resource
from engine.verify.reading import Keyed, Ruled, SuiteReading, fault_lines, lacks_all, set_together
from engine.verify.suites import (
    BrokenSuite,
    Expectation,
    ExpectedOutput,
    ExpectedOutputs,
    Fixtures,
    Options,
    Suite,
    SuiteError,
    SuiteInput,
    SuiteTest,
)
from engine.verify.timestamps import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.document import Document, Path
    from engine.fields import Reading
    from engine.model import JsonValue

EXTENSIONS = (".yaml", ".yml", ".json")
SUITE_SUFFIXES = tuple(f"_test{extension}" for extension in EXTENSIONS)
TEST_DATA = "testdata"
PRINCIPALS = ("principals",)
RESOURCES = ("resources",)
AUX_DATA = ("auxdata", "auxData", "aux_data")
FIXTURE_FILES = frozenset(
    f"{name}{extension}" for name in (*PRINCIPALS, *RESOURCES, *AUX_DATA) for extension in EXTENSIONS
)


# -- the tables --------------------------------------------------------------------------------------------

POLICY_VERSION = matches(r"^[\w]*$")
SCOPE = matches(r"^(^$|\.|[0-9a-zA-Z][\w\-]*(\.\w[\w\-]*)*)$")


class _Unusable(enum.Enum):
    EFFECT = "an effect that cannot be expected"


_EFFECT = Choice({"EFFECT_ALLOW": Effect.ALLOW, "EFFECT_DENY": Effect.DENY, 1: Effect.ALLOW, 2: Effect.DENY})
_UNUSABLE = {"EFFECT_UNSPECIFIED", "EFFECT_NO_MATCH", 0, 3}


def _effect(reading: Reading, value: Any, path: Path) -> enum.Enum | None:
    """Read an effect; words of the enumeration that no test can expect are told apart from no words."""
    if isinstance(value, (str, int)) and value in _UNUSABLE:
        return _Unusable.EFFECT
    return _EFFECT(reading, value, path)


def _allow_or_deny(value: object) -> str:
    return "must be one of [EFFECT_ALLOW, EFFECT_DENY]" if isinstance(value, _Unusable) else ""


_NAMES = Many(text, (some_text,))
_VERSION = Field("policyVersion", "policy_version", text, (POLICY_VERSION,))
_SCOPE = Field("scope", "scope", text, (SCOPE,))
_ATTR = Field("attr", "attr", Entries(json))
_ID = Field("id", "id", text, (not_empty,), required=True)
_ROLES = Field("roles", "roles", _NAMES, (not_empty, unique), required=True)

PRINCIPAL = Message(Principal, _ID, _ROLES, _ATTR, _VERSION, _SCOPE)
RESOURCE = Message(
    Resource, Field("kind", "kind", text, (not_empty,), required=True), _ID, _ATTR, _VERSION, _SCOPE
)
JWT = Message(dict, Field("claims", "claims", Entries(json)))


def _aux_data(jwt: Mapping[str, JsonValue] = EMPTY, jwts: Mapping[str, Any] = EMPTY) -> AuxData:
    return AuxData(dict(jwt), {name: {"claims": {}} | token for name, token in jwts.items()})


AUX_DATUM = Ruled(
    Message(_aux_data, Field("jwt", "jwt", Entries(json)), Field("jwts", "jwts", Entries(JWT))),
    set_together("jwt", "jwts", "Only one of the jwt or jwts fields must be set"),
)


def _members(members: tuple[str, ...]) -> tuple[str, ...]:
    return members


def _group(name: str) -> Message:
    return Message(_members, Field(name, "members", _NAMES, (not_empty, unique), required=True))


_PRINCIPALS = Field("principals", "principals", Keyed(PRINCIPAL))
_PRINCIPAL_GROUPS = Field("principalGroups", "principal_groups", Keyed(_group("principals")))
_RESOURCES = Field("resources", "resources", Keyed(RESOURCE))
_RESOURCE_GROUPS = Field("resourceGroups", "resource_groups", Keyed(_group("resources")))
_AUX_DATA = Field("auxData", "aux_data", Keyed(AUX_DATUM))
_EDITOR_HINT = Field("$schema", "editor_hint", ignored)

OPTIONS = Message(
    Options,
    Field("now", "now", timestamp),
    Field("globals", "globals", Entries(json)),
    Field("defaultPolicyVersion", "default_policy_version", text),
    Field("defaultScope", "default_scope", text),
    Field("lenientScopeSearch", "lenient_scope_search", boolean),
    Field("strictEvaluation", "strict_evaluation", boolean),
)
INPUT = Ruled(
    Message(
        SuiteInput,
        Field("principals", "principals", _NAMES, (unique,)),
        Field("principalGroups", "principal_groups", _NAMES, (unique,)),
        Field("resources", "resources", _NAMES, (unique,)),
        Field("resourceGroups", "resource_groups", _NAMES, (unique,)),
        Field("actions", "actions", _NAMES, (not_empty, unique), required=True),
        Field("auxData", "aux_data", text),
    ),
    lacks_all("principals", "principalGroups", "principals or principalGroups must be present"),
    lacks_all("resources", "resourceGroups", "resources or resourceGroups must be present"),
)
_OUTPUT_ENTRY = Message(
    ExpectedOutput,
    Field("src", "source", text),
    Field("val", "value", json),
    Field("action", "action", ignored),  # fields of Cerbos's OutputEntry that say nothing in a test
    Field("error", "error", ignored),
)


def _output_entry(reading: Reading, value: Any, path: Path) -> ExpectedOutput | None:
    """Read an expected output, and tell ``val: null`` from no ``val``."""
    found: ExpectedOutput | None = _OUTPUT_ENTRY(reading, value, path)
    if found is not None and "val" in value and value["val"] is None:
        return replace(found, value=None)
    return found


OUTPUTS = Message(
    ExpectedOutputs,
    Field("action", "action", text, (not_empty,), required=True),
    Field("expected", "expected", Many(_output_entry), (not_empty,), required=True),
)
EXPECTATION = Ruled(
    Message(
        Expectation,
        Field("principal", "principal", text),
        Field("principals", "principals", _NAMES, (unique,)),
        Field("principalGroups", "principal_groups", _NAMES, (unique,)),
        Field("resource", "resource", text),
        Field("resources", "resources", _NAMES, (unique,)),
        Field("resourceGroups", "resource_groups", _NAMES, (unique,)),
        Field(
            "actions",
            "actions",
            Keyed(_effect, key_checks=(some_text,), checks=(_allow_or_deny,)),
            (not_empty,),
            required=True,
        ),
        Field("outputs", "outputs", Many(OUTPUTS)),
    ),
    lacks_all(
        "principal",
        "principals",
        "principalGroups",
        "principal, principals, or principalGroups must be present",
    ),
    set_together("principal", "principals", "principal and principals may not both be present"),
    lacks_all(
        "resource", "resources", "resourceGroups", "resource, resources, or resourceGroups must be present"
    ),
    set_together("resource", "resources", "resource and resources may not both be present"),
)
TABLE = Message(
    SuiteTest,
    Field("name", "name", text, (not_empty,), required=True),
    Field("description", "description", text),
    Field("skip", "skip", boolean),
    Field("skipReason", "skip_reason", text),
    Field("input", "input", INPUT, required=True),
    Field("expected", "expected", Many(EXPECTATION), (not_empty,), required=True),
    Field("options", "options", OPTIONS),
)


def _suite(editor_hint: object = None, **arguments: Any) -> Suite:
    del editor_hint
    return Suite(**arguments)


SUITE = Message(
    _suite,
    _EDITOR_HINT,
    Field("name", "name", text, (not_empty,), required=True),
    Field("description", "description", text),
    Field("skip", "skip", boolean),
    Field("skipReason", "skip_reason", text),
    Field("tests", "tests", Many(TABLE), (not_empty,), required=True),
    Field("options", "options", OPTIONS),
    _PRINCIPALS,
    _PRINCIPAL_GROUPS,
    _RESOURCES,
    _RESOURCE_GROUPS,
    _AUX_DATA,
)

_FIXTURE_KINDS = (
    ("principals", PRINCIPALS, Message(dict, _EDITOR_HINT, _PRINCIPALS, _PRINCIPAL_GROUPS)),
    ("resources", RESOURCES, Message(dict, _EDITOR_HINT, _RESOURCES, _RESOURCE_GROUPS)),
    ("aux data", AUX_DATA, Message(dict, _EDITOR_HINT, _AUX_DATA)),
)
"""What it is called in messages, the names of its file, its fields."""


# -- loading -----------------------------------------------------------------------------------------------


def is_suite_file(name: str) -> bool:
    """Tell whether a file of this name holds a test suite; the ending may be in capitals."""
    return name.lower().endswith(SUITE_SUFFIXES)


def load_suites(files: Mapping[str, bytes]) -> tuple[Suite | BrokenSuite, ...]:
    """Read every suite among *files* (path with ``/`` to content), in the order of their paths."""
    loader = SuiteLoader(files)
    return tuple(loader.load(path) for path in loader.paths)


class SuiteLoader:
    """Reads suites one by one; the fixtures of a folder are read once."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self.paths = sorted(path for path in files if _is_suite(path))
        self._fixtures = functools.cache(self._read_fixtures)

    def load(self, path: str) -> Suite | BrokenSuite:
        """Read one suite with its fixtures."""
        try:
            suite = read_suite(self._files[path], path)
        except SuiteError as error:
            return BrokenSuite(path, f"failed to load test suite:\n{error.text}", faults=error.faults)
        folder = posixpath.join(posixpath.dirname(path), TEST_DATA)
        found = self._fixtures(folder)
        if isinstance(found, Fixtures):
            return replace(suite, shared=found)
        error_text = f"failed to load test fixtures from {folder}: {found.text}"
        return BrokenSuite(path, error_text, suite.name, suite.description, found.faults)

    def _read_fixtures(self, folder: str) -> Fixtures | SuiteError:
        found: dict[str, Any] = {}
        for kind, file_names, message in _FIXTURE_KINDS:
            path = self._fixture_file(folder, file_names)
            try:
                found |= {} if path is None else read_fixtures(self._files[path], path, message)
            except SuiteError as error:
                separator = "\n" if error.faults else " "
                return SuiteError(f"failed to load {kind}:{separator}{error.text}", error.faults)
        return Fixtures(**found)

    def _fixture_file(self, folder: str, file_names: tuple[str, ...]) -> str | None:
        candidates = (f"{folder}/{name}{extension}" for name in file_names for extension in EXTENSIONS)
        return next((path for path in candidates if path in self._files), None)


def _is_suite(path: str) -> bool:
    folders, _, name = path.rpartition("/")
    return is_suite_file(name) and TEST_DATA not in folders.split("/")


def read_suite(content: bytes | str, file: str) -> Suite:
    """Read one suite, without fixtures from elsewhere.

    Raises:
        SuiteError: with every fault of the file.

    """
    document = _parsed(content, file)
    if document.value is None:
        message = "the file holds no test suite"
        raise SuiteError(message, (documents.Fault(file, 0, 0, message),))
    suite: Suite = replace(_read(document, SUITE), file=file)
    return suite


def read_fixtures(content: bytes | str, file: str, message: Message) -> dict[str, Any]:
    """Read one file of fixtures; a file without content has none.

    Raises:
        SuiteError: with every fault of the file.

    """
    document = _parsed(content, file)
    if document.value is None:
        return {}
    found: dict[str, Any] = _read(document, message)
    found.pop("editor_hint", None)
    for fixtures, groups in (("principals", "principal_groups"), ("resources", "resource_groups")):
        check_groups(found.get(groups, EMPTY), found.get(fixtures, EMPTY).__contains__)
    return found


def check_groups(groups: Mapping[str, tuple[str, ...]], exists: Callable[[str], bool]) -> None:
    """Check that every member of every group is there.

    Raises:
        SuiteError: naming the first one that is not.

    """
    for group, members in groups.items():
        for member in members:
            if not exists(member):
                raise SuiteError(f'missing fixture "{member}" referenced in group "{group}"')


def _parsed(content: bytes | str, file: str) -> Document:
    try:
        return documents.parse(content, file)
    except documents.DocumentError as error:
        raise SuiteError(fault_lines(error.faults, None), error.faults) from None


def _read(document: Document, message: Message) -> Any:
    if not isinstance(document.value, dict):
        text_ = "invalid document: contents are not valid YAML or JSON"
        hint = f"a mapping is expected, this is {describe(document.value)}"
        fault = document.fault(text_, kind=documents.PARSE_ERROR, hint=hint)
        raise SuiteError(fault_lines([fault], document.value), (fault,))
    reading = SuiteReading(document)
    found = message(reading, document.value, ())
    if not reading.well_formed:
        faults = tuple(reading.faults)
        raise SuiteError(fault_lines(faults, document.value), faults)
    document.release()
    return found
