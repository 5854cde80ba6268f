"""The comparison with peers: its arithmetic, its report, and the smallest one from end to end."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from extauthz import config
from extauthz.transport.address import Address
from tests.bench import h2load
from tests.bench.h2load import Closed, Fixed, LoadError
from tests.bench.measure import Measurement
from tests.bench.peers import __main__ as comparison
from tests.bench.peers import build, conditions, expenses, gateway, machine, scale, sides
from tests.bench.peers.__main__ import write
from tests.bench.peers.comparison import chosen, compare
from tests.bench.peers.conditions import SATURATED, Condition
from tests.bench.peers.expenses import Verdict, framed, unframed
from tests.bench.peers.extent import Extent
from tests.bench.peers.gateway import ALONE, Upstream
from tests.bench.peers.report import Added, Report, markdown, tables
from tests.bench.peers.rounds import Plan, Run, added, direct, figures, percentile, ratio
from tests.bench.peers.scale import Start
from tests.bench.processes import Memory
from tests.bench.service import CONFIGURATION, environment
from tests.differential.oracle import cerbos_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUIRED = os.environ.get("CI", "").lower() == "true"

# --- arithmetic -------------------------------------------------------------------------------------------


def run(rate: float, cpu: float = 100.0, latencies: tuple[int, ...] = (1, 2, 3)) -> Run:
    return Run(rate, cpu, latencies, others=0.1)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [(range(1, 101), 50, 50), (range(1, 101), 99, 99), (range(1, 101), 99.9, 100), ([7], 50, 7)],
)
def test_percentiles_are_values_that_occurred(values: Any, percent: float, expected: float) -> None:
    """The nearest rank: no value is made up between two."""
    assert percentile(list(values), percent) == expected


def test_a_disturbed_round_does_not_decide() -> None:
    """Figures are medians of the rounds; the far percentile is that of all requests together."""
    calm = tuple(range(100, 200))
    found = figures("side", Closed(4, 4), [run(1000, 10, calm), run(990, 11, calm), run(3, 90, (9000,))])
    assert (found.rate, found.low, found.high, found.cpu) == (990, 3, 1000, 11)
    assert (found.p50, found.p99, found.p999) == (149, 198, 9000)


def test_a_rate_that_is_not_reached_is_marked() -> None:
    """A side that falls behind a fixed rate is told from one that keeps it; a closed loop has none."""
    assert figures("side", Fixed(1000), [run(800)]).saturated
    assert not figures("side", Fixed(1000), [run(990)]).saturated
    assert not figures("side", Closed(1, 1), [run(1)]).saturated


def test_sides_are_compared_round_by_round() -> None:
    """The ratio is that within rounds: a slow moment strikes both sides and cancels out."""
    ours, theirs = [run(200), run(20), run(400)], [run(100), run(10), run(100)]
    assert ratio(ours, theirs, lambda one: one.rate) == 2
    alone = [run(1, latencies=(10,)), run(1, latencies=(100,)), run(1, latencies=(20,))]
    checked = [run(1, latencies=(15,)), run(1, latencies=(104,)), run(1, latencies=(90,))]
    assert added(checked, alone, 50) == 5


def test_conditions_follow_from_the_runs() -> None:
    """Each promise is held against its limit; what was not measured is neither met nor missed."""
    runs = {
        (sides.OURS_ALL, SATURATED): (run(150),),
        (sides.CERBOS_GRPC, SATURATED): (run(100),),
        (sides.EMPTY_ALL, SATURATED): (run(300),),
    }
    verdicts = {each.promise: (each.value, each.verdict) for each in conditions.throughput(runs)}
    grpcio = f"transport grpcio, {sides.workers(sides.CORES)}: requests/s,"
    assert verdicts[f"{grpcio} times Cerbos's CheckResources over gRPC"] == (1.5, "met")
    assert verdicts[f"{grpcio} part of an empty handler's"] == (0.5, "not met")
    envoy = [verdict for promise, verdict in verdicts.items() if promise.startswith("transport envoy")]
    assert envoy == [(None, "not measured")] * 3


def test_what_a_check_adds_is_compared_with_the_peers() -> None:
    """The time over that of the same Envoy alone counts, not the time."""
    runs = {
        (ALONE, "100/s"): (run(1, latencies=(100,)),),
        (sides.OURS_ALL, "100/s"): (run(1, latencies=(150,)),),
        (sides.CERBOS_ADAPTER, "100/s"): (run(1, latencies=(300,)),),
    }
    found = list(conditions.behind_envoy(runs, [sides.OURS_ALL], "100/s"))
    assert [(each.value, each.verdict) for each in found] == [
        *[(0.25, "met")] * 2,
        *[(None, "not measured")] * 2,
    ]


def test_growth_is_held_against_its_limits() -> None:
    """Start and memory with the most policies, decisions, and how much dearer they are than with few."""
    starts = [
        Start(scale.OURS, 10, 1, 1, 1, 1),
        Start(scale.OURS, 1000, 2.0, 320, 310, 1),
        Start(scale.AGAIN, 1000, 1.0, 1, 1, 1),
        Start(scale.CERBOS, 1000, 8.0, 1, 1, 1),
    ]
    timed = [
        Measurement("routes", "few", 20, ratio=1.0, budget=25),
        Measurement("routes", "many", 30, ratio=1.5, budget=25),
    ]
    found = list(conditions.growth(starts, timed, 1000))
    assert [(each.value, each.verdict) for each in found] == [
        (0.25, "met"),
        (0.125, "not met"),
        (310, "not met"),
        (20, "met"),
        (1.5, "not met"),
    ]


# --- answers ----------------------------------------------------------------------------------------------


def test_only_one_plain_message_is_an_answer() -> None:
    """An empty body (an error in the trailers), a cut one and a compressed one are no answers."""
    assert unframed(framed(b"abc")) == b"abc"
    for body in (b"", framed(b"abc")[:-1], b"\1" + framed(b"abc")[1:], framed(b"a") * 2):
        with pytest.raises(ValueError, match="not one plain gRPC message"):
            unframed(body)


def test_an_allow_without_the_output_is_no_answer() -> None:
    """A side that allows everything is found out, however fast it is."""
    from tests.bench.empty_server import ANSWER  # noqa: PLC0415 # only here

    with pytest.raises(ValueError, match="without the policy's output"):
        expenses.ext_authz_verdict(framed(ANSWER))
    with pytest.raises(ValueError, match="without a status"):
        expenses.ext_authz_verdict(framed(b""))
    result = {"actions": {"read": "EFFECT_ALLOW"}, "outputs": [{"val": "owner of another"}]}
    with pytest.raises(ValueError, match="EFFECT_ALLOW with outputs"):
        expenses.cerbos_rest_verdict(json.dumps({"results": [result]}).encode())


# --- report -----------------------------------------------------------------------------------------------


def _report() -> Report:
    loaded = [
        figures(side, Closed(8, 8), [run(100.0)])
        for side in (sides.EMPTY_ALL, sides.OURS_ALL, sides.CERBOS_GRPC)
    ]
    return Report(
        command="make bench-peers",
        method="Two rounds.",
        machine={"cores": "2"},
        missing={"OPA": "no Go toolchain to build it"},
        conditions=[Condition("faster", 3.5, 3, at_least=True), Condition("smaller", None, 300, unit=" MiB")],
        direct=loaded,
        gateway=[figures(sides.OURS_ALL, Fixed(1234), [run(900.0)])],
        added=[Added(sides.OURS_ALL, "1,234/s", 100, 200, 300, 400, 50)],
        memory={sides.OURS_ALL: Memory(120.4, 80.6)},
        starts=[Start(scale.OURS, 10, 1.234, 100, 90, 400)],
        measurements=[Measurement("routes", "10 routes", 20.0, low=19, high=22, ratio=1.0)],
    )


def test_the_page_says_what_was_found_and_what_was_not() -> None:
    """The Markdown page holds the promises with verdicts, what was left out and why, and every table."""
    page = markdown(_report(), [("Throughput", "throughput.svg")])
    assert "| faster | 3.50 | ≥ 3 | met |" in page
    assert "| smaller |  | ≤ 300 MiB | not measured |" in page
    assert "- OPA: no Go toolchain to build it" in page
    assert "![Throughput](throughput.svg)" in page
    assert "## Asked directly: 64 in flight" in page
    assert "| extauthz, grpcio, " in page
    assert "900 (not reached)" in page
    assert [line for line in page.splitlines() if line.startswith("| extauthz, 1 worker | 10 | 1.23 |")]


def test_every_figure_is_in_the_data() -> None:
    """The JSON document has the figures that the tables round, and the verdicts."""
    document = json.loads(json.dumps(_report().document()))
    assert document["conditions"][0] | {"value": 3.5, "verdict": "met"} == document["conditions"][0]
    assert document["direct"][1]["rate"] == 100.0
    assert document["starts"][0]["seconds"] == 1.234


def test_few_sides_under_a_load_share_a_table() -> None:
    """Loads that only one side was under do not make a table each."""
    titles = [table.title for table in tables(_report()) if table.rows]
    assert "Through a real Envoy: further loads" in titles
    assert "Through a real Envoy: 1,234/s" not in titles


def test_charts_are_drawn(tmp_path: Path) -> None:
    """The page and its charts stand side by side; every chart is an SVG that the page shows."""
    write(_report(), tmp_path)
    page = (tmp_path / "report.md").read_text()
    drawn = sorted(tmp_path.glob("*.svg"))
    assert [each.name for each in drawn] == [
        "added.svg",
        "cpu.svg",
        "memory.svg",
        "start.svg",
        "throughput.svg",
    ]
    for each in drawn:
        assert "<svg" in each.read_text()
        assert f"({each.name})" in page


def test_a_run_that_is_broken_off_leaves_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong answer ends the run and fails it, but does not cost what was measured before."""

    def fails(report: Report, *_: object) -> None:
        report.conditions += _report().conditions
        raise LoadError("Cerbos: not every answer is what it has to be")

    monkeypatch.setattr(comparison, "compare", fails)
    monkeypatch.setattr(h2load, "available", lambda: True)
    monkeypatch.setattr(machine, "described", dict)
    before = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(comparison.main, ["--output", str(tmp_path)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.exit_code == 1
    assert "Cerbos: not every answer" in done.output
    assert "| faster | 3.50 |" in (tmp_path / "report.md").read_text()


# --- peers ------------------------------------------------------------------------------------------------


def test_versions_are_read_from_the_binaries() -> None:
    """The versions in the report are those that were built, as ``go version -m`` tells them."""
    said = (
        "/x/bin/opa-authz: go1.26.8\n\tpath\tbench/cmd/opa-authz\n"
        "\tdep\tgithub.com/open-policy-agent/opa\tv1.22.3\th1:abc=\n\tdep\texample.com/other\tv1.0.0\th1:d=\n"
    )
    assert build.module_versions(said) == {"Go": "1.26.8", "OPA": "v1.22.3"}


def test_every_side_has_a_listener_of_the_same_gateway() -> None:
    """But for the one without a check, listeners differ in whom they ask, and in raw headers; no more."""
    made = gateway.configuration(
        {ALONE: 1, "ours, 2 workers": 2, "theirs": 3},
        {
            "ours, 2 workers": Upstream(Address(path="/run/check.sock"), raw_headers=True),
            "theirs": Upstream(Address("127.0.0.1", 13), raw_headers=False),
        },
    )
    resources = made["static_resources"]
    filters = [_http_filters(listener) for listener in resources["listeners"]]
    assert [gateway.EXT_AUTHZ in each for each in filters] == [False, True, True]
    ours, theirs = (each[gateway.EXT_AUTHZ] for each in filters[1:])
    assert ours["grpc_service"]["envoy_grpc"] == {"cluster_name": "ours-2-workers"}
    assert (ours["encode_raw_headers"], theirs["encode_raw_headers"]) == (True, False)
    assert ours["failure_mode_allow"] is False
    for check in (ours, theirs):
        del check["grpc_service"]["envoy_grpc"], check["encode_raw_headers"]
    assert ours == theirs
    assert [cluster["name"] for cluster in resources["clusters"]] == ["ours-2-workers", "theirs"]
    assert [_endpoint(cluster) for cluster in resources["clusters"]] == [
        {"pipe": {"path": "/run/check.sock"}},
        {"socket_address": {"address": "127.0.0.1", "port_value": 13}},
    ]


def test_a_gateway_that_holds_extauthz_is_like_the_others(tmp_path: Path) -> None:
    """What clients reach differs from the listeners of the other gateway in nothing but a cluster's name."""
    settings = config.parse(CONFIGURATION, "bench.yaml", environment(tmp_path)).config.server
    holding = gateway.holding_extauthz(settings, Address("127.0.0.1", 1))["static_resources"]
    asking = gateway.configuration(
        {"ours": 1}, {"ours": Upstream(Address("127.0.0.1", 12), raw_headers=True)}
    )["static_resources"]
    outside, inside = holding["listeners"]
    (listener,) = asking["listeners"]
    for each in (outside, listener):
        del each["name"]
        del _http_filters(each)[gateway.EXT_AUTHZ]["grpc_service"]["envoy_grpc"]["cluster_name"]
    assert outside == listener
    (cluster,) = holding["clusters"]
    assert _endpoint(cluster) == {"envoy_internal_address": {"server_listener_name": inside["name"]}}


def _endpoint(cluster: dict[str, Any]) -> Any:
    return cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]


def _http_filters(listener: dict[str, Any]) -> dict[str, Any]:
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return {each["name"]: each["typed_config"] for each in manager["http_filters"]}


# --- from end to end --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools() -> None:
    """Skip (in CI: fail) where a tool is missing."""
    missing = [
        *([] if h2load.available() else ["no h2load (Debian: nghttp2-client)"]),
        *filter(None, [gateway.missing()]),
    ]
    if missing and REQUIRED:
        pytest.fail("; ".join(missing))
    if missing:
        pytest.skip("; ".join(missing))


@pytest.fixture(scope="module")
def place(tools: None) -> Iterator[sides.Place]:  # needed, not used
    """Hold what servers share."""
    with ExitStack() as stack:
        yield sides.Place(stack)


SMALLEST = Extent(Plan(1, 0.05), Plan(1, 0.2), (200,), (2,), 1, 3, own_half=False)


@pytest.mark.usefixtures("tools")
def test_the_smallest_comparison(tmp_path: Path) -> None:
    """Ours and the real Cerbos, directly and (ours) through real Envoys: every table has its rows."""
    cerbos_binary()
    behind = [sides.OURS_ALL, sides.OURS_SOCKET, sides.OURS_INSIDE]
    compared, missing = chosen([*behind, sides.CERBOS_GRPC])
    report = Report("test", "", {})
    compare(report, SMALLEST, compared)
    assert (missing, report.missing, report.failed, report.complete) == ({}, {}, {}, True)
    assert {each.side for each in report.direct} == {sides.OURS_ALL, sides.CERBOS_GRPC}
    assert {each.side for each in report.gateway} == {ALONE, *behind}
    assert [each.side for each in report.added] == behind
    assert list(report.memory) == [gateway.OF_THE_OTHERS, *behind, sides.CERBOS_GRPC]
    assert all(each.rate > 0 and each.p50 > 0 for each in (*report.direct, *report.gateway))
    assert [(each.side, each.policies) for each in report.starts] == [
        (side, 2) for side in (scale.OURS, scale.AGAIN, scale.CERBOS)
    ]
    measured = [each for each in report.conditions if "times Cerbos" in each.promise and each.value]
    assert [each.promise.partition(",")[0] for each in measured] == ["transport grpcio"]
    assert all(held.pss > 10 for held in report.memory.values())
    write(report, tmp_path)
    assert (tmp_path / "report.md").is_file()


def test_a_wrong_answer_ends_the_run(place: sides.Place) -> None:
    """A server that allows what it has to deny is not measured; nor one whose answers change under load."""
    by_name = {side.name: side for side in sides.SIDES}
    with by_name[sides.EMPTY_ONE].start(place) as server:
        honest = direct("empty", server, place.directory)
        honest.check()
        denies = replace(server.question, denied=server.question.allowed)
        subject = direct("empty", replace(server, question=denies), place.directory)
        with pytest.raises(LoadError, match=f"{Verdict.ALLOW}, where {Verdict.DENY} is right"):
            subject.check()
        with pytest.raises(LoadError, match="not every answer"):
            h2load.run(honest.target, Closed(1, 1), 5, place.directory, answer_bytes=honest.answer_bytes + 1)
