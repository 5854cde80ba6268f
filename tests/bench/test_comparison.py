"""The comparison with peers: its arithmetic, its report, and the smallest one from end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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
from tests.bench.peers.extent import FULL, QUICK, Extent, seconds
from tests.bench.peers.gateway import ALONE, Upstream
from tests.bench.peers.report import Added, Report, markdown, tables
from tests.bench.peers.rounds import (
    Cell,
    Plan,
    Run,
    added,
    added_far,
    direct,
    figures,
    measured,
    percentile,
    ratio,
)
from tests.bench.peers.scale import Start
from tests.bench.processes import Memory, StartError, await_ready, running, tree
from tests.bench.service import CONFIGURATION, environment
from tests.differential.oracle import cerbos_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
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


def test_the_far_percentile_is_added_by_all_rounds_together() -> None:
    """One slow request in one of two rounds is within the 99.9th percentile of a hundred: it counts."""
    calm, slow = tuple(range(100, 150)), (*range(100, 149), 900)
    assert added_far([run(1, latencies=calm), run(1, latencies=slow)], [run(1, latencies=calm)]) == 900 - 149


def test_a_check_costs_what_it_costs_anywhere() -> None:
    """What a check takes in server and gateway is one figure: where the server lives does not count."""
    alone = [Run(1, 0, (1,), 0, gateway=cpu) for cpu in (30, 50, 40)]
    beside = [Run(1, 100, (1,), 0, gateway=cpu) for cpu in (90, 110, 500)]
    inside = [Run(1, 0, (1,), 0, gateway=cpu) for cpu in (190, 210, 500)]
    found = figures("beside", Closed(1, 1), beside, alone)
    assert (found.cpu, found.gateway, found.check) == (100, 110, 160)
    assert figures("inside", Closed(1, 1), inside, alone).check == 160
    assert figures("asked directly", Closed(1, 1), beside).check is None


def test_what_cannot_be_divided_by_is_not_measured() -> None:
    """A round too short for the kernel's ticks, and a peer that adds nothing, end no comparison."""
    runs = {
        (sides.OURS_ALL, SATURATED): (run(150, cpu=10),),
        (sides.OURS_ENVOY, SATURATED): (run(150, cpu=10),),
        (sides.CERBOS_GRPC, SATURATED): (run(100, cpu=0),),
        **{(side, "1/s"): (run(1),) for side in (ALONE, sides.OURS_ALL, sides.OPA_AUTHZ)},
    }
    costs = [each for each in conditions.throughput(runs) if "CPU a request" in each.promise]
    assert [each.verdict for each in costs] == ["not measured"]
    behind = conditions.behind_envoy(runs, [sides.OURS_ALL], "1/s")
    assert {each.verdict for each in behind} == {"not measured"}


def test_conditions_follow_from_the_runs() -> None:
    """Each promise is held against its limit; what was not measured is neither met nor missed."""
    runs = {
        (sides.OURS_ALL, SATURATED): (run(150),),
        (sides.CERBOS_GRPC, SATURATED): (run(100),),
        (sides.EMPTY_ASYNCIO, SATURATED): (run(300),),
    }
    verdicts = {each.promise: (each.value, each.verdict) for each in conditions.throughput(runs)}
    grpcio = f"transport grpcio, {sides.workers(sides.CORES)}: requests/s,"
    assert verdicts[f"{grpcio} times Cerbos's CheckResources over gRPC"] == (1.5, "met")
    assert verdicts[f"{grpcio} of those of `{sides.EMPTY_ASYNCIO}`"] == (0.5, "not met")
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
        failed={"Cerbos": "it ended; it said:\nno policies"},
        conditions=[Condition("faster", 3.5, 3, at_least=True), Condition("smaller", None, 300, unit=" MiB")],
        direct=loaded,
        gateway=[
            figures(sides.OURS_ALL, Fixed(1234), [run(900.0)]),
            *(
                figures(
                    side,
                    Closed(8, 8),
                    [Run(500, cpu, (1,), 0, gateway=gate)],
                    [Run(1, 0, (1,), 0, gateway=30)],
                )
                for side, cpu, gate in ((ALONE, 0, 30), (sides.OURS_ALL, 80, 70), (sides.OURS_INSIDE, 0, 130))
            ),
        ],
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
    assert "- Cerbos: it ended; it said:\n  no policies\n" in page
    assert "**Not complete**" in page
    assert "**Not complete**" not in markdown(replace(_report(), complete=True), [])
    assert "![Throughput](throughput.svg)" in page
    assert "## Asked directly: 64 in flight" in page
    assert "| extauthz, grpcio, " in page
    assert "900 (not reached)" in page
    assert [line for line in page.splitlines() if line.startswith("| extauthz, 1 worker | 10 | 1.23 |")]


def test_what_is_counted_through_a_gateway_has_columns_of_its_own() -> None:
    """Server, gateway and what the check costs in both: empty where there is no such thing, not 0."""
    (table,) = (each for each in tables(_report()) if each.title == f"Through a real Envoy: {SATURATED}")
    start = table.columns.index("server µs")
    assert table.columns[start : start + 3] == ("server µs", "gateway µs", "check µs")
    assert {row[0]: row[start : start + 3] for row in table.rows} == {
        ALONE: ("", "30", ""),
        sides.OURS_ALL: ("80", "70", "120"),
        sides.OURS_INSIDE: ("", "130", "100"),
    }


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
        "gateway-cpu.svg",
        "gateway.svg",
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
    before = {number: signal.getsignal(number) for number in comparison.ENDING}
    try:
        done = CliRunner().invoke(comparison.main, ["--output", str(tmp_path)])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert done.exit_code == 1
    assert "Cerbos: not every answer" in done.output
    assert "| faster | 3.50 |" in (tmp_path / "report.md").read_text()


def test_nobody_is_compared_by_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name that no side has is an error at once, not minutes with an empty report."""
    monkeypatch.setattr(h2load, "available", lambda: True)
    done = CliRunner().invoke(comparison.main, ["--only", "nobody", "--output", str(tmp_path / "report")])
    assert done.exit_code == 2
    assert "no side has a name with nobody in it" in done.output
    assert list(tmp_path.iterdir()) == []


# --- about how long ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        replace(QUICK, plan=Plan(4, 0.4)),
        replace(QUICK, plan=Plan(3, 0.5)),
        replace(QUICK, fixed=Plan(3, 2.0)),
        replace(QUICK, rates=(500, 1500)),
        replace(QUICK, policies=(10, 10_000)),
        replace(QUICK, starts=2),
        replace(QUICK, bursts=1000),
        replace(QUICK, own_half=True),
        FULL,
    ],
)
def test_what_is_measured_more_takes_longer(more: Extent) -> None:
    """The estimate follows from everything that a run is given, its sides included."""
    assert seconds(more, sides.SIDES) > seconds(QUICK, sides.SIDES)
    assert seconds(more, sides.SIDES) > seconds(more, sides.SIDES[:-1])
    assert seconds(more, sides.SIDES[:1]) > 0


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


@pytest.fixture
def place(tools: None) -> Iterator[sides.Place]:  # needed, not used
    """Hold what servers share."""
    with ExitStack() as stack:
        yield sides.Place(stack)


SMALLEST = Extent(Plan(1, 0.05), Plan(1, 0.2), (200,), (2,), 1, 3, own_half=False)


def _broken(_place: sides.Place) -> NoReturn:
    raise StartError("it ended")


@contextmanager
def _credulous(place: sides.Place) -> Iterator[sides.Server]:
    """Run a server that allows everything, and claim that it denies."""
    with sides._empty(place, 1) as server:
        yield replace(server, question=replace(server.question, denied=server.question.allowed))


@pytest.mark.usefixtures("tools")
def test_the_smallest_comparison(tmp_path: Path) -> None:
    """Ours and the real Cerbos, directly and (ours) through real Envoys: every table has its rows.

    One side does not start, one allows what it has to deny: the report says so, the others are measured.
    """
    cerbos_binary()
    behind = [sides.OURS_ALL, sides.OURS_SOCKET, sides.OURS_INSIDE]
    compared, missing = chosen([*behind, sides.CERBOS_GRPC])
    report = Report("test", "", {})
    saved: list[int] = []
    failing = [sides.Side("broken", _broken), sides.Side("credulous", _credulous, behind_envoy=True)]
    compare(report, SMALLEST, [*failing, *compared], save=lambda: saved.append(len(report.gateway)))
    assert (missing, report.missing, report.complete) == ({}, {}, True)
    assert report.failed == {
        "broken": "it ended",
        "credulous": f"{Verdict.ALLOW}, where {Verdict.DENY} is right",
    }
    assert set(saved) == {0, *range(4, len(report.gateway) + 1, 4)}, "not saved after each load"
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


def test_a_wrong_answer_is_not_measured(place: sides.Place) -> None:
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


def test_who_fails_under_load_is_asked_no_more(place: sides.Place) -> None:
    """Of a side with a wrong answer nothing is returned, and the others get all their rounds."""
    by_name = {side.name: side for side in sides.SIDES}
    with by_name[sides.EMPTY_ONE].start(place) as server:
        honest = direct("honest", server, place.directory)
        short = replace(honest, name="short", answer_bytes=honest.answer_bytes - 1)
        failed: list[str] = []
        cells = [Cell(each, Closed(1, 1)) for each in (short, honest)]
        found = measured(cells, Plan(2, 0.01), place.directory, give_up=lambda name, _: failed.append(name))
        assert failed == ["short"]
        assert [(key, len(runs)) for key, runs in found.items()] == [(("honest", "1 in flight"), 2)]
        with pytest.raises(LoadError, match="short, 1 in flight: not every answer"):
            measured(cells, Plan(2, 0.01), place.directory)
    gone = replace(honest, name="gone")
    assert measured([Cell(gone, Closed(1, 1))], Plan(1, 0.01), place.directory, give_up=lambda *_: None) == {}


# --- the end ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_its_figures_and_nothing_else(tmp_path: Path, end: signal.Signals) -> None:
    """However it ends, what was measured stands in page and data, and no process of the run is left."""
    data = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.bench.peers", "--quick", "--only", sides.OURS_INSIDE]
    command += ["--json", str(data), "--output", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:  # noqa: S603  # ours
        try:
            _await(lambda: data.is_file() and json.loads(data.read_text())["gateway"], started)
            everybody = tree([started.pid])
            started.send_signal(end)
            said, _ = started.communicate(timeout=PATIENCE)
        finally:
            started.kill()
    assert started.returncode == (-end if end == signal.SIGKILL else 128 + end)
    assert "1 side: about 1 minute\n" in said
    assert len(everybody) > 2, "the gateways were not up"
    for pid in everybody:
        _await_end(pid)
    document = json.loads(data.read_text())
    assert document["complete"] is False
    assert {each["side"] for each in document["gateway"]} == {ALONE, sides.OURS_INSIDE}
    page = (tmp_path / "report.md").read_text()
    assert "**Not complete**" in page
    assert f"| {sides.OURS_INSIDE} |" in page


def _await(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, "nothing was measured"
        time.sleep(0.05)


def test_what_a_server_leaves_behind_is_ended(tmp_path: Path) -> None:
    """A server that goes without the process that it has started does not leave it to the machine."""
    log = tmp_path / "log"
    command = ["/bin/sh", "-c", "sleep 600 & echo up; wait"]
    with running(command, log) as server:
        await_ready(server, log, lambda: "up" in log.read_text())
        _, child = tree([server.pid])
    assert server.returncode == -signal.SIGTERM
    _await_end(child)


def _await_end(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while _runs(pid):
        assert time.monotonic() < deadline, f"process {pid} is left"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Whether there is such a process that has not ended; whoever inherits it may have yet to bury it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
