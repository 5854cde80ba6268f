"""A request finds the most specific route, and no other; what is ambiguous never gets into a table."""

from __future__ import annotations

import gc
import itertools
import timeit
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.request import HttpRequest
from extauthz.routes import (
    CAPTURE_TYPES,
    MAX_SEGMENTS,
    NOT_FOUND,
    Capture,
    HostPattern,
    Literal,
    Match,
    MethodNotAllowed,
    NotFound,
    PathTemplate,
    Pattern,
    Rest,
    RouteTable,
    Segment,
    clashes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CASES = Path(__file__).parents[1] / "cases" / "routes"


def load(name: str) -> Any:
    return yaml.safe_load((CASES / f"{name}.yaml").read_text(encoding="utf-8"))


TEMPLATES = load("templates")


@dataclass(frozen=True)
class Route:
    """The least that a route can be."""

    number: int
    pattern: Pattern


def pattern(written: Mapping[str, Any]) -> Pattern:
    headers = written.get("headers", {})
    return Pattern(
        path=PathTemplate.parse(written["path"]),
        hosts=tuple(map(HostPattern.parse, written.get("hosts", ()))),
        methods=frozenset(written["methods"]) if "methods" in written else None,
        headers=tuple((name, None if value is True else value) for name, value in headers.items()),
        trailing_slash=written.get("slash") == "ignore",
    )


def table(patterns: Iterable[Pattern]) -> RouteTable[Route]:
    return RouteTable([Route(number, each) for number, each in enumerate(patterns)])


def request(line: str, headers: Any = ()) -> HttpRequest:
    method, _, rest = line.partition(" ")
    cut = min((place for place in (rest.find("/"), rest.find("*")) if place >= 0), default=0)
    pairs = headers.items() if isinstance(headers, dict) else headers
    return HttpRequest(method=method, host=rest[:cut], target=rest[cut:], headers=[(n, v) for n, v in pairs])


FIND = [
    pytest.param(case["routes"], find, id=f"{case['why']}: {find[0]}")
    for case in load("matching")
    for find in case["find"]
]


@pytest.mark.parametrize(("routes", "find"), FIND)
def test_a_request_finds_its_route(routes: list[Any], find: list[Any]) -> None:
    """Host, path, methods and headers choose as ``matching.yaml`` says."""
    line, *rest = find
    headers = (
        rest.pop(0)
        if isinstance(rest[0], dict) or (rest[0] and rest[0] != 404 and _are_pairs(rest[0]))
        else ()
    )
    found = table(map(pattern, routes)).match(request(line, headers))
    expected = rest[0]
    if expected == 404:
        assert found == NOT_FOUND
    elif isinstance(expected, list):
        assert found == MethodNotAllowed(tuple(expected))
    else:
        assert isinstance(found, Match)
        assert (found.route.number, dict(found.parameters)) == (expected, rest[1] if len(rest) > 1 else {})


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, list) for each in value)


@pytest.mark.parametrize("case", load("clashes"), ids=lambda case: case["why"])
def test_ambiguous_patterns_clash(case: dict[str, Any]) -> None:
    """Two patterns of which neither is the more specific for some request are found, in either order."""
    one, other = pattern(case["one"]), pattern(case["other"])
    for pair in ([one, other], [other, one]):
        assert [clash[:2] for clash in clashes(pair)] == ([(0, 1)] if case["clash"] else [])


def test_all_clashes_are_found_in_order() -> None:
    """Every pair is reported once, ordered by the second of the two."""
    patterns = [pattern({"path": path, "hosts": ["a", "b"]}) for path in ("/x", "/y", "/x", "/y", "/x")]
    assert [clash[:2] for clash in clashes(patterns)] == [(0, 2), (1, 3), (0, 4), (2, 4)]


@pytest.mark.parametrize("case", TEMPLATES["paths"], ids=lambda case: repr(case["text"]))
def test_a_bad_path_template_is_explained(case: dict[str, Any]) -> None:
    """What is no path template is refused, and its author is told why."""
    with pytest.raises(ValueError, match=r"\S") as refused:
        PathTemplate.parse(case["text"])
    assert case["says"] in str(refused.value)


@pytest.mark.parametrize("case", TEMPLATES["hosts"], ids=lambda case: repr(case["text"]))
def test_a_bad_host_is_explained(case: dict[str, Any]) -> None:
    """What is no host is refused, and its author is told why."""
    with pytest.raises(ValueError, match=r"\S") as refused:
        HostPattern.parse(case["text"])
    assert case["says"] in str(refused.value)


@pytest.mark.parametrize("case", TEMPLATES["unreachable"], ids=lambda case: f"{case['path']} {case['says']}")
def test_a_path_that_no_request_can_have_is_noticed(case: dict[str, Any]) -> None:
    """A template that asks for a spelling which is refused or read otherwise is unreachable."""
    assert case["says"] in PathTemplate.parse(case["path"]).unreachable(frozenset(case.get("relaxed", ())))


@pytest.mark.parametrize("case", TEMPLATES["reachable"], ids=lambda case: str(case["path"]))
def test_a_path_that_a_request_can_have_is_reachable(case: dict[str, Any]) -> None:
    """Ordinary templates, and unusual ones whose spelling the route accepts, are reachable."""
    assert PathTemplate.parse(case["path"]).unreachable(frozenset(case.get("relaxed", ()))) == ""


def test_a_template_has_a_limited_depth() -> None:
    """A template cannot have more segments than the limit."""
    PathTemplate.parse("/a" * MAX_SEGMENTS)
    with pytest.raises(ValueError, match="at most 32 segments"):
        PathTemplate.parse("/a" * (MAX_SEGMENTS + 1))


def test_a_pattern_is_written_out_for_people() -> None:
    """Methods, hosts and path show in a pattern's text."""
    written = pattern({"path": "/a/{id:int}", "hosts": ["b.c", "*.d"], "methods": ["PUT", "GET"]})
    assert str(written) == "GET|PUT b.c,*.d/a/{id:int}"


# --- against a slow and obvious matcher -------------------------------------------------------------------


def captured(segments: tuple[Segment, ...], path: tuple[str, ...]) -> list[object] | None:
    """Give what a shape captures from a path, None if it does not match."""
    values: list[object] = []
    for index, segment in enumerate(segments):
        if isinstance(segment, Rest):
            return [*values, "/".join(path[index:])] if index < len(path) else None
        if index >= len(path):
            return None
        if isinstance(segment, Literal):
            if segment.text != path[index]:
                return None
        else:
            kind = CAPTURE_TYPES.get(segment.type)
            if not path[index] or (kind and not kind.accepts(path[index])):
                return None
            values.append(kind.convert(path[index]) if kind else path[index])
    return values if len(path) == len(segments) else None


def path_rank(segments: tuple[Segment, ...]) -> tuple[int, ...]:
    """Smaller is more specific."""
    return tuple(
        0 if isinstance(s, Literal) else 3 if isinstance(s, Rest) else 1 if s.type else 2 for s in segments
    )


def host_rank(pattern: HostPattern | None, host: str) -> int | None:
    """Smaller is more specific; None if it does not match."""
    if pattern is None:
        return 1000
    if not pattern.wildcard:
        return 0 if pattern.name == host else None
    return 500 - len(pattern.name) if host.endswith(f".{pattern.name}") else None


def obvious(patterns: list[Pattern], asked: HttpRequest) -> object:
    """Look at every pattern, keep the most specific host and path, then choose among what is left."""
    candidates = []
    for number, each in enumerate(patterns):
        for host, shape in each.places:
            rank, values = host_rank(host, asked.host), captured(shape, asked.segments)
            if rank is not None and values is not None:
                candidates.append(((rank, path_rank(shape)), number, values))
    if not candidates:
        return 404
    best = min(candidate[0] for candidate in candidates)
    here = [(number, values) for rank, number, values in candidates if rank == best]
    fitting = [
        (number, values)
        for number, values in here
        if patterns[number].methods is None or asked.method in (patterns[number].methods or ())
    ]
    if not fitting:
        return {method for number, _ in here for method in patterns[number].methods or ()}
    fitting = [(number, values) for number, values in fitting if patterns[number].accepts(asked)]
    return max(fitting, key=lambda found: patterns[found[0]].rank, default=404)


LITERALS = st.sampled_from(["a", "b", "7", "é"])
CAPTURES = st.sampled_from(["{%}", "{%:int}", "{%:uuid}"])
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@st.composite
def paths(draw: st.DrawFn) -> str:
    parts = draw(st.lists(LITERALS | CAPTURES, max_size=4))
    end = draw(st.sampled_from(["", "/", "/{%=**}"]))
    text = "".join(f"/{part.replace('%', f'p{index}')}" for index, part in enumerate(parts))
    return text + end.replace("%", "rest") or "/"


HOSTS = st.sampled_from(["a.b.c", "b.c", "*.c", "*.b.c"])
PATTERNS = st.builds(
    lambda path, hosts, methods, headers, slash: pattern(
        {"path": path, "hosts": sorted(hosts), "headers": headers, "slash": slash}
        | ({"methods": sorted(methods)} if methods else {})
    ),
    paths(),
    st.sets(HOSTS, max_size=2),
    st.sets(st.sampled_from(["GET", "PUT", "POST"]), max_size=2),
    st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.sampled_from([True, "1", "2"]), max_size=2),
    st.sampled_from(["ignore", "exact"]),
)
REQUESTS = st.builds(
    lambda method, host, parts, headers: HttpRequest(
        method=method, host=host, target="/" + "/".join(parts), headers=list(headers.items())
    ),
    st.sampled_from(["GET", "PUT", "DELETE"]),
    st.sampled_from(["a.b.c", "b.c", "x.c", "y.x.b.c", "other", ""]),
    st.lists(st.sampled_from(["a", "b", "7", "42", UUID, UUID.upper(), "é", "x"]), max_size=5).flatmap(
        lambda parts: st.sampled_from([parts, [*parts, ""]])
    ),
    st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.sampled_from(["1", "2", "3"])),
)


@given(st.lists(PATTERNS, max_size=12), st.lists(REQUESTS, min_size=1, max_size=6))
def test_the_table_agrees_with_looking_at_every_pattern(
    patterns: list[Pattern], requests: list[HttpRequest]
) -> None:
    """Whatever the routes, the table finds what comparing the request with each one of them finds."""
    refused = {clash.second for clash in clashes(patterns)}
    patterns = [each for number, each in enumerate(patterns) if number not in refused]
    routes = table(patterns)
    for asked in requests:
        found, expected = routes.match(asked), obvious(patterns, asked)
        if isinstance(found, Match):
            assert (found.route.number, list(found.parameters.values())) == expected
        elif isinstance(found, NotFound):
            assert expected == 404
        else:
            assert set(found.allowed) == expected


@settings(max_examples=300)
@given(st.lists(PATTERNS, max_size=12), st.lists(REQUESTS, min_size=1, max_size=6), st.booleans())
def test_lookups_alone_find_nothing_else(
    patterns: list[Pattern], requests: list[HttpRequest], wildcards: bool
) -> None:
    """What the usual way finds is what the whole way finds, before and after the table was asked."""
    refused = {clash.second for clash in clashes(patterns)}
    routes = table(
        [
            each
            for number, each in enumerate(patterns)
            if number not in refused and (wildcards or not any(host.wildcard for host in each.hosts))
        ]
    )
    for asked in [*requests, *requests]:
        usual = routes.usual(asked.host, asked.segments, asked.method)
        found = routes.match(asked)
        if usual is not None:
            assert isinstance(found, Match)
            assert usual == (found.route, "".join(map(str, found.parameters.values())))


def test_the_usual_way_is_enough_for_most_requests() -> None:
    """Paths with at most one plain capture are found by lookups alone, on their host or on any."""
    routes = table([pattern({"path": "/a/{x}", "hosts": ["b.c"]}), pattern({"path": "/{x}/b"})])
    asked = [
        HttpRequest(host="b.c", target="/a/7"),
        HttpRequest(host="b.c", target="/7/b"),
        HttpRequest(host="other", target="/7/b"),
    ]
    found = [routes.match(each) for each in asked]
    assert [routes.usual(each.host, each.segments, each.method) for each in asked] == [
        (each.route, "7") for each in found if isinstance(each, Match)
    ]


@settings(max_examples=30)
@given(st.lists(PATTERNS, min_size=1, max_size=8), st.lists(REQUESTS, min_size=1, max_size=6), st.randoms())
def test_the_order_of_routes_does_not_matter(
    patterns: list[Pattern], requests: list[HttpRequest], random: Any
) -> None:
    """Shuffling the routes of a file changes no answer."""
    refused = {clash.second for clash in clashes(patterns)}
    routes = [Route(number, each) for number, each in enumerate(patterns) if number not in refused]
    shuffled = random.sample(routes, len(routes))
    for asked in requests:
        assert RouteTable(routes).match(asked) == RouteTable(shuffled).match(asked)


# --- cost -------------------------------------------------------------------------------------------------


def test_hostile_paths_take_linear_time() -> None:
    """However a table branches, each form is looked at once: a full tree of dead ends is quick."""
    choices = itertools.product(("a", "{x%}"), repeat=8)
    texts = ("".join(f"/{part.replace('%', str(i))}" for i, part in enumerate(parts)) for parts in choices)
    routes = table(Pattern(PathTemplate.parse(f"{text}/end")) for text in texts)
    asked = request("GET h" + "/a" * 8 + "/nothing")
    assert routes.match(asked) == NOT_FOUND
    assert min(timeit.repeat(lambda: routes.match(asked), number=1, repeat=5)) < 0.01  # 255 forms


def test_matching_does_not_slow_down_with_the_number_of_routes() -> None:
    """A thousand routes take no longer than ten; the bound leaves room for a noisy machine."""
    asked = request("GET h/api/s5/items/42")

    def seconds(count: int) -> float:
        texts = [
            text for i in range(count // 2) for text in (f"/api/s{i}/items/{{id}}", f"/api/s{i}/{{kind}}/all")
        ]
        routes = table(Pattern(PathTemplate.parse(text)) for text in texts)
        assert isinstance(routes.match(asked), Match)
        return min(timeit.repeat(lambda: routes.match(asked), number=200, repeat=20))

    assert seconds(1000) < 2 * seconds(12)


def test_a_table_can_be_thrown_away() -> None:
    """Nothing keeps a table that is not used any more: configurations may be loaded again and again."""
    route = Route(0, pattern({"path": "/a/{b}/{c=**}"}))
    routes, alive = RouteTable([route]), weakref.ref(route)
    del route, routes
    gc.collect()
    assert alive() is None


def test_captures_have_disjoint_types() -> None:
    """No text is accepted by two types, so their order cannot matter."""
    for text in ("0", "42", "-1", UUID, "x", ""):
        assert sum(bool(kind.accepts(text)) for kind in CAPTURE_TYPES.values()) <= 1


def test_a_shape_forgets_names() -> None:
    """The shape of a template has its literals and types, and no names."""
    shape = PathTemplate.parse("/a/{b:int}/{c}/{d=**}").shape
    assert shape == (Literal("a"), Capture("", "int"), Capture(""), Rest(""))
