"""The messages of ExplainResources, which is ours: the request is the one of CheckResources.

Annotations are evaluated here (no ``from __future__ import annotations``): the codecs read them.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from extauthz.pdp.messages import (
    EFFECT,
    NOTHING,
    OutputEntry,
    ResultMeta,
    ResultResource,
    ValidationError,
)
from extauthz.pdp.schema import ABSENT, Json, Tag, message


@message("extauthz.v1.ExplainResourcesResponse.ResultEntry")
class ExplainedEntry(NamedTuple):
    """The answer for one resource, as CheckResources gives it, and the way to it."""

    resource: Annotated[ResultResource | None, Tag(1)] = None
    actions: Annotated[Mapping[str, str], Tag(2, enum=EFFECT)] = NOTHING
    validation_errors: Annotated[tuple[ValidationError, ...], Tag(3)] = ()
    meta: Annotated[ResultMeta | None, Tag(4)] = None
    outputs: Annotated[tuple[OutputEntry, ...], Tag(5)] = ()
    explanation: Annotated[Json, Tag(6)] = ABSENT


@message("extauthz.v1.ExplainResourcesResponse")
class ExplainResourcesResponse(NamedTuple):
    """The answers, in the order of the request."""

    request_id: Annotated[str, Tag(1)] = ""
    results: Annotated[tuple[ExplainedEntry, ...], Tag(2)] = ()
    cerbos_call_id: Annotated[str, Tag(3)] = ""
