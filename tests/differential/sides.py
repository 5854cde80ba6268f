"""The two sides of a comparison: our engine and the real Cerbos, with answers in the same form.

A case is plain JSON: policy files by path, a request of ``CheckResources``, and a configuration. Cerbos's
answers are read from its decision log, which tells more than its API: the errors of evaluation too.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import AuxData, CheckInput, Engine, Settings, json_value
from tests import questions as read
from tests.differential.oracle import Oracle, OracleError, cerbos

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine import Decision

Files = Mapping[str, Any]
"""Policies and schemas as JSON, by their path in the store."""

Request = Mapping[str, Any]
"""A request of ``CheckResources``: *principal*, *resources* with their *actions*, claims in *auxData*."""

LOG_SECONDS = 10.0


@dataclass(frozen=True)
class Configuration:
    """How both sides are set up, in our words and in Cerbos's."""

    name: str
    evaluation: str = "lenient"
    lenient_scope_search: bool = False
    schema_enforcement: str = "none"
    default_policy_version: str = "default"
    default_scope: str = ""
    globals: Mapping[str, Any] = field(default_factory=dict)
    key_sets: tuple[Mapping[str, Any], ...] = ()
    """Where the keys of tokens are, in Cerbos's words; for servers only."""

    def settings(self) -> Settings:
        """Return the settings of our engine."""
        return Settings(
            evaluation=self.evaluation,  # type: ignore[arg-type]  # one of the literals
            default_policy_version=self.default_policy_version,
            default_scope=self.default_scope,
            lenient_scope_search=self.lenient_scope_search,
            schema_enforcement=self.schema_enforcement,  # type: ignore[arg-type]  # the same
            globals=json_value(self.globals),
        )

    def blocks(self) -> dict[str, Any]:
        """Return the blocks of Cerbos's configuration."""
        return {
            "engine": {
                "strictEvaluation": self.evaluation == "strict",
                "lenientScopeSearch": self.lenient_scope_search,
                "defaultPolicyVersion": self.default_policy_version,
                "defaultScope": self.default_scope,
                "globals": dict(self.globals),
                "celErrorLogLevel": "none",
            },
            "schema": {"enforcement": self.schema_enforcement},
            "auxData": {"jwt": {"keySets": [dict(keys) for keys in self.key_sets]}},
        }


class Answer(NamedTuple):
    """What is compared of the answer for one resource; what has no order is sorted."""

    actions: tuple[tuple[str, str, str, str], ...] = ()
    """Action, effect, deciding policy and scope."""

    derived_roles: tuple[str, ...] = ()
    outputs: tuple[tuple[str, str, str, bool], ...] = ()
    """Source, action, value as JSON text, whether it is an error."""

    validation_errors: tuple[tuple[str, str, str], ...] = ()
    """Source, path and message."""

    evaluation_errors: tuple[str, ...] = ()
    """The expressions that failed."""

    effective_policies: tuple[str, ...] = ()
    """The policies that were looked at, for all resources of the request."""

    failure: str = ""
    """There is no answer, but this."""


@contextlib.contextmanager
def written(files: Files) -> Iterator[Path]:
    """Write policy files to a directory that exists as long as the context."""
    with tempfile.TemporaryDirectory(prefix="policies-") as name:
        root = Path(name)
        for path, content in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(content, ensure_ascii=False, indent=1))
        yield root


def canonical(value: Any) -> str:
    """Write a JSON value so that equal values have equal text: every number a double."""
    return json.dumps(json_value(value), sort_keys=True, ensure_ascii=False)


# -- ours --------------------------------------------------------------------------------------------------


def ours(engine: Engine, request: Request) -> list[Answer]:
    """Ask our engine in this process."""
    return _together([answer(decision) for decision in engine.check_many(questions(request))])


def _together(answers: Sequence[Answer]) -> list[Answer]:
    """Let each answer name the policies of all, as Cerbos's log has them for the request as a whole."""
    policies = tuple(sorted({policy for one in answers for policy in one.effective_policies}))
    return [one._replace(effective_policies=policies) for one in answers]


def questions(request: Request) -> list[CheckInput]:
    """Return the questions that a request asks."""
    principal = read.principal(request["principal"])
    claims = AuxData(json_value(request.get("claims", {})))
    return [
        CheckInput(principal, read.resource(entry["resource"]), tuple(entry["actions"]), claims)
        for entry in request["resources"]
    ]


def answer(decision: Decision) -> Answer:
    """Return what is compared of one of our decisions."""
    return Answer(
        tuple(
            sorted(
                (action, found.effect.value, found.policy, found.scope)
                for action, found in decision.actions.items()
            )
        ),
        tuple(sorted(decision.effective_derived_roles)),
        tuple(
            sorted(
                (out.src, out.action, "" if out.error else canonical(out.value), bool(out.error))
                for out in decision.outputs
            )
        ),
        tuple(
            sorted(
                (error.source, error.path, _ordered(error.message)) for error in decision.validation_errors
            )
        ),
        tuple(sorted({error.expression for error in decision.evaluation_errors})),
        decision.effective_policies,
    )


def _ordered(message: str) -> str:
    """Put the words of a message that lists names in order; Cerbos lists them in that of a Go map."""
    if message.startswith("additionalProperties "):
        return " ".join(sorted(message.replace(",", "").split(" ")))
    return message


# -- Cerbos's ----------------------------------------------------------------------------------------------


class Cerbos:
    """A running Cerbos with a decision log."""

    def __init__(self, oracle: Oracle) -> None:
        assert oracle.decision_log is not None
        self._oracle = oracle
        self._log = oracle.decision_log.open(encoding="utf-8")

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()

    def answers(self, request: Request) -> list[Answer]:
        """Ask Cerbos; where one resource breaks the whole answer, ask for each by itself.

        A number that JSON does not have (infinity) in one output costs the whole answer.
        """
        status, said = self._oracle.ask("/api/check/resources", _body(request))
        if status == 200:
            entry = self._decision(said["cerbosCallId"])
            policies = tuple(sorted(entry.get("auditTrail", {}).get("effectivePolicies", ())))
            return [_logged(output, policies) for output in entry["checkResources"]["outputs"]]
        resources = request["resources"]
        if len(resources) == 1:
            return [Answer(failure=f"{status} {said.get('message', said)}")]
        return [found for one in resources for found in self.answers({**request, "resources": [one]})]

    def rest(self, path: str, body: bytes) -> tuple[int, Any]:
        """POST *body* as it is; return the status and the JSON of the answer."""
        return self._oracle.post(path, body)

    def _decision(self, call_id: str) -> Mapping[str, Any]:
        end = time.monotonic() + LOG_SECONDS
        while time.monotonic() < end:
            place = self._log.tell()
            line = self._log.readline()
            if not line.endswith("\n"):
                self._log.seek(place)
                time.sleep(0.002)
                continue
            entry: Mapping[str, Any] = json.loads(line, parse_int=float)
            if entry["callId"] == call_id:
                return entry
        raise OracleError(f"{call_id} is not in the decision log")


def _body(request: Request) -> dict[str, Any]:
    body = {name: value for name, value in request.items() if name != "claims"}
    return {"requestId": "1", "includeMeta": True, **body}


def _logged(output: Mapping[str, Any], policies: tuple[str, ...]) -> Answer:
    return Answer(
        tuple(
            sorted(
                (action, found["effect"], found.get("policy", ""), found.get("scope", ""))
                for action, found in output["actions"].items()
            )
        ),
        tuple(sorted(output.get("effectiveDerivedRoles", ()))),
        tuple(
            sorted(
                (
                    out["src"],
                    out["action"],
                    *(("", True) if "error" in out else (canonical(out.get("val")), False)),
                )
                for out in output.get("outputs", ())
            )
        ),
        tuple(
            sorted(
                (error["source"], error.get("path", ""), _ordered(error["message"]))
                for error in output.get("validationErrors", ())
            )
        ),
        tuple(sorted({error["celError"]["expression"] for error in output.get("evaluationErrors", ())})),
        policies,
    )


@contextlib.contextmanager
def asking_cerbos(directory: Path, configuration: Configuration) -> Iterator[Cerbos]:
    """Run a Cerbos over a directory.

    Raises:
        OracleError: it does not start.

    """
    with cerbos(directory, configuration.blocks(), decision_log=True) as oracle:
        asked = Cerbos(oracle)
        try:
            yield asked
        finally:
            asked.close()
