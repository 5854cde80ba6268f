"""The messages of the AuthZEN calls (``authzen.authorization.v1``), as named tuples.

Names, numbers and rules are those of Cerbos's API, which follows the OpenID AuthZEN Authorization API. No
package publishes generated classes for them; the tests speak the same bytes and JSON with the real Cerbos.

Annotations are evaluated here (no ``from __future__ import annotations``): the codecs read them.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple

from extauthz.pdp.messages import NOTHING
from extauthz.pdp.rules import KEYS, NAME, REQUIRED, Rules
from extauthz.pdp.schema import Json, MessageRule, Tag, message

EXECUTE_ALL: Final = "execute_all"
DENY_ON_FIRST_DENY: Final = "deny_on_first_deny"
PERMIT_ON_FIRST_PERMIT: Final = "permit_on_first_permit"
SEMANTICS: Final = ("", EXECUTE_ALL, DENY_ON_FIRST_DENY, PERMIT_ON_FIRST_PERMIT)
"""Empty is :data:`EXECUTE_ALL`."""


@message("authzen.authorization.v1.Subject")
class Subject(NamedTuple):
    """Who asks. A property ``cerbos.roles`` holds the roles; without it the type is the only role."""

    type: Annotated[str, Tag(1, NAME)] = ""
    id: Annotated[str, Tag(2, NAME)] = ""
    properties: Annotated[Mapping[str, Json], Tag(3, KEYS)] = NOTHING


@message("authzen.authorization.v1.Resource")
class Resource(NamedTuple):
    """What is asked for."""

    type: Annotated[str, Tag(1, NAME)] = ""
    id: Annotated[str, Tag(2, NAME)] = ""
    properties: Annotated[Mapping[str, Json], Tag(3, KEYS)] = NOTHING


@message("authzen.authorization.v1.Action")
class Action(NamedTuple):
    """What is to be done. Policies see the name alone."""

    name: Annotated[str, Tag(1, NAME)] = ""
    properties: Annotated[Mapping[str, Json], Tag(2, KEYS)] = NOTHING


@message("authzen.authorization.v1.AccessEvaluationRequest")
class AccessEvaluationRequest(NamedTuple):
    """A question: may the subject do the action to the resource."""

    subject: Annotated[Subject | None, Tag(1, REQUIRED)] = None
    resource: Annotated[Resource | None, Tag(2, REQUIRED)] = None
    action: Annotated[Action | None, Tag(3, REQUIRED)] = None
    context: Annotated[Mapping[str, Json], Tag(4, KEYS)] = NOTHING


@message("authzen.authorization.v1.AccessEvaluationResponse")
class AccessEvaluationResponse(NamedTuple):
    """The decision."""

    decision: Annotated[bool | None, Tag(1, optional=True)] = None
    context: Annotated[Mapping[str, Json], Tag(2)] = NOTHING


@message("authzen.authorization.v1.AccessEvaluationBatchRequest.Evaluation")
class Evaluation(NamedTuple):
    """One question of a batch; what it leaves out is as the batch says."""

    subject: Annotated[Subject | None, Tag(1)] = None
    resource: Annotated[Resource | None, Tag(2)] = None
    action: Annotated[Action | None, Tag(3)] = None
    context: Annotated[Mapping[str, Json], Tag(4, KEYS)] = NOTHING


@message("authzen.authorization.v1.AccessEvaluationsOptions")
class EvaluationsOptions(NamedTuple):
    """How a batch is worked through."""

    evaluations_semantic: Annotated[str, Tag(1, Rules(choices=SEMANTICS))] = ""


def _given(part: str) -> Callable[[Any], bool]:
    """Make the rule that *part* is given for the whole batch or in each of its evaluations."""

    def holds(batch: Any) -> bool:
        return bool(getattr(batch, part)) or all(getattr(each, part) for each in batch.evaluations)

    return holds


@message(
    "authzen.authorization.v1.AccessEvaluationBatchRequest",
    MessageRule(
        "actions",
        "either the default action must be set or all evaluations must have an action",
        _given("action"),
    ),
    MessageRule(
        "subjects",
        "either the default subject must be set or all evaluations must have a subject",
        _given("subject"),
    ),
    MessageRule(
        "resources",
        "either the default resource must be set or all evaluations must have a resource",
        _given("resource"),
    ),
)
class AccessEvaluationBatchRequest(NamedTuple):
    """Several questions at once, with what they have in common said once."""

    subject: Annotated[Subject | None, Tag(1)] = None
    resource: Annotated[Resource | None, Tag(2)] = None
    action: Annotated[Action | None, Tag(3)] = None
    context: Annotated[Mapping[str, Json], Tag(4, KEYS)] = NOTHING
    evaluations: Annotated[tuple[Evaluation, ...], Tag(5, Rules(min_items=1))] = ()
    options: Annotated[EvaluationsOptions | None, Tag(6)] = None


@message("authzen.authorization.v1.AccessEvaluationBatchResponse")
class AccessEvaluationBatchResponse(NamedTuple):
    """The decisions, in the order of the questions; fewer when the semantic ended the batch early."""

    evaluations: Annotated[tuple[AccessEvaluationResponse, ...], Tag(1)] = ()


@message("authzen.authorization.v1.MetadataRequest")
class MetadataRequest(NamedTuple):
    """Asks where the calls are."""


@message("authzen.authorization.v1.MetadataResponse")
class MetadataResponse(NamedTuple):
    """Where the calls are, as absolute addresses."""

    policy_decision_point: Annotated[str, Tag(1, json_name="policy_decision_point")] = ""
    access_evaluation_endpoint: Annotated[str, Tag(2, json_name="access_evaluation_endpoint")] = ""
    access_evaluations_endpoint: Annotated[str, Tag(3, json_name="access_evaluations_endpoint")] = ""
