"""Messages to try things on: requests and responses of every shape."""

from __future__ import annotations

from hypothesis import strategies as st

from extauthz.pdp import messages as m
from extauthz.pdp.schema import ABSENT

# protobuf strings hold no lone surrogates
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ATTR = st.dictionaries(TEXT, JSON_VALUES, max_size=3)
NAMES = st.lists(TEXT, max_size=3).map(tuple)
PRINCIPALS = st.builds(m.Principal, TEXT, TEXT, NAMES, ATTR, TEXT)
RESOURCES = st.builds(m.Resource, TEXT, TEXT, TEXT, ATTR, TEXT)
ENTRIES = st.lists(st.builds(m.ResourceEntry, NAMES, st.none() | RESOURCES), max_size=3).map(tuple)
TOKENS = st.builds(m.Token, TEXT, TEXT)
AUX_DATA = st.builds(m.AuxData, st.none() | TOKENS, st.dictionaries(TEXT, TOKENS, max_size=2))
CONTEXTS = st.builds(m.RequestContext, ATTR)
CHECK_REQUESTS = st.builds(
    m.CheckResourcesRequest,
    TEXT,
    st.booleans(),
    st.none() | PRINCIPALS,
    ENTRIES,
    st.none() | AUX_DATA,
    st.none() | CONTEXTS,
)

EFFECTS = st.sampled_from(m.EFFECT.names)
ERRORS = st.lists(st.builds(m.ValidationError, TEXT, TEXT, st.sampled_from(m.SOURCE.names)), max_size=2)
METAS = st.builds(m.ResultMeta, st.dictionaries(TEXT, st.builds(m.EffectMeta, TEXT, TEXT), max_size=2), NAMES)
OUTPUTS = st.lists(st.builds(m.OutputEntry, TEXT, JSON_VALUES | st.just(ABSENT), TEXT, TEXT), max_size=2).map(
    tuple
)
RESULTS = st.builds(
    m.ResultEntry,
    st.none() | st.builds(m.ResultResource, TEXT, TEXT, TEXT, TEXT),
    st.dictionaries(TEXT, EFFECTS, max_size=3),
    ERRORS.map(tuple),
    st.none() | METAS,
    OUTPUTS,
)
CHECK_RESPONSES = st.builds(m.CheckResourcesResponse, TEXT, st.lists(RESULTS, max_size=3).map(tuple), TEXT)

OPERANDS = st.recursive(
    JSON_VALUES.map(m.Operand) | TEXT.filter(bool).map(lambda name: m.Operand(variable=name)),
    lambda inner: st.builds(m.Expression, TEXT, st.lists(inner, max_size=3).map(tuple)).map(
        lambda expression: m.Operand(expression=expression)
    ),
    max_leaves=6,
)
FILTERS = st.builds(m.PlanResourcesFilter, st.sampled_from(m.FILTER_KIND.names), st.none() | OPERANDS)
PLAN_METAS = st.builds(m.PlanMeta, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=2))
PLAN_RESPONSES = st.builds(
    m.PlanResourcesResponse,
    *(TEXT, TEXT, NAMES, TEXT, TEXT),
    st.none() | FILTERS,
    st.none() | PLAN_METAS,
    ERRORS.map(tuple),
    TEXT,
)
