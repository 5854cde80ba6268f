"""The reasons by which answers are counted: a closed set, so that no client can make one up.

A code that is in none of the tables is counted as :data:`OTHER`. It would be a mistake of ours, and a test
looks for codes that the tables lack.
"""

from __future__ import annotations

from typing import Final

from extauthz.facts import BODY_MALFORMED, BODY_MISSING, BODY_TOO_LARGE, BODY_TRUNCATED, BODY_TYPE, MAPPING
from extauthz.identity import REFUSALS
from extauthz.reasons import REASONS, reason
from extauthz.request import PATH_FAULTS, REQUEST_FAULTS
from extauthz.slots import CLAIM_MISSING
from extauthz.sources import SOURCE_REASONS
from extauthz.templates import AmbiguousQuery

OTHER: Final = "other"
INTERNAL: Final = "internal"
"""A bug of ours."""

COUNTED: Final = frozenset(
    {
        *REASONS,
        *PATH_FAULTS,
        *REQUEST_FAULTS,
        *REFUSALS,
        *SOURCE_REASONS,
        *(BODY_MALFORMED, BODY_MISSING, BODY_TOO_LARGE, BODY_TRUNCATED, BODY_TYPE, MAPPING, CLAIM_MISSING),
        AmbiguousQuery.reason,
        OTHER,
    }
)
"""Every code that answers are counted by."""


def outcome(code: str) -> str:
    """Tell what an answer with the reason *code* means to a request: `allow`, `deny` or `error`."""
    status = reason(code).status
    return "allow" if status < 400 else "deny" if status < 500 else "error"


LABELS: Final = {code: (outcome(code), code) for code in sorted(COUNTED)}
"""Outcome and reason of each code, as metrics call them."""
