"""What h2load says, read; and what is asked of it, drawn beforehand."""

from __future__ import annotations

import itertools

import pytest

from tests.bench.h2load import Counted, LoadError, _checked, arrivals, counted, logged, paced, shares

SUMMARY = """\
starting benchmark...
progress: 100% done

finished in {time}, 1093.54 req/s, 118.30KB/s
requests: 200 total, 200 started, 200 done, {succeeded} succeeded, {failed} failed, 0 errored, 0 timeout
status codes: {succeeded} 2xx, 0 3xx, {failed} 4xx, 0 5xx
traffic: 22.07KB (22600) total, 15.63KB (16000) headers (space savings 12.50%), 400B (400) data
                     min         max         mean         sd        +/- sd
time for request:      663us     48.06ms     44.06ms      3.27ms    91.50%
"""


@pytest.mark.parametrize(
    ("time", "seconds"), [("182.89ms", 0.18289), ("8.82s", 8.82), ("950us", 0.00095), ("1.50m", 90.0)]
)
def test_the_summary_is_read(time: str, seconds: float) -> None:
    """Requests, successes, bytes of the bodies and the time are read, in whatever unit h2load writes it."""
    read = counted(SUMMARY.format(time=time, succeeded=200, failed=0))
    assert read == Counted(200, 200, 200, 400, pytest.approx(seconds))  # type: ignore[arg-type] # stands for a float


def test_output_without_a_summary_is_an_error() -> None:
    """A load generator that broke off has counted nothing, not zero."""
    with pytest.raises(LoadError, match="could not connect"):
        counted("could not connect to the host\n")


def test_the_log_is_read() -> None:
    """Each line gives the start and the duration of a request."""
    assert logged("1795884765414157\t200\t663\n1795884765417007\t200\t41761\n") == [
        (1795884765414157, 663),
        (1795884765417007, 41761),
    ]


def test_a_request_that_failed_is_an_error() -> None:
    """A stream that was reset (-1) or a status of 503 ends the measurement, and is named."""
    with pytest.raises(LoadError, match=r"2 of 3 requests were answered with -1, 503"):
        logged("1\t200\t663\n2\t503\t10\n3\t-1\t10\n")


ANSWERS = [(0, 500_000), (500_000, 500_000)]


def test_generators_side_by_side_add_up() -> None:
    """The rate is the sum of the generators', though one of them began later."""
    count = Counted(2, 2, 2, 20, 1.0)
    later = [(start + 10_000_000, took) for start, took in ANSWERS]
    loaded = _checked([(count, ANSWERS), (count, later)], answer_bytes=10)
    assert loaded.requests == 4
    assert loaded.rate == pytest.approx(4.0)
    assert loaded.latencies == (500_000,) * 4


@pytest.mark.parametrize(
    "count",
    [
        Counted(2, 1, 2, 20, 1.0),
        Counted(2, 2, 1, 20, 1.0),
        Counted(2, 2, 2, 19, 1.0),
        Counted(3, 3, 3, 30, 1.0),
    ],
    ids=["not succeeded", "status", "another answer", "not logged"],
)
def test_an_answer_that_differs_is_an_error(count: Counted) -> None:
    """One failure, one other status, one body of another length: any of them ends the measurement."""
    with pytest.raises(LoadError, match="not every answer"):
        _checked([(count, ANSWERS)], answer_bytes=10)


@pytest.mark.parametrize(("total", "parts", "divided"), [(10, 4, [3, 3, 2, 2]), (2, 4, [1, 1, 0, 0])])
def test_requests_are_shared_out(total: int, parts: int, divided: list[int]) -> None:
    """The shares of the generators make the whole and differ by one at most."""
    assert shares(total, parts) == divided


def test_arrivals_keep_the_rate_and_are_independent() -> None:
    """Moments are sorted, in the time that the rate gives, and as irregular as independent callers are."""
    moments = arrivals(1000.0, 5000, seed=1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    mean = sum(gaps) / len(gaps)
    assert moments == sorted(moments)
    assert 0 <= moments[0] <= moments[-1] <= 5000
    assert mean == pytest.approx(1.0, rel=0.02)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance**0.5 == pytest.approx(mean, rel=0.1)  # of a Poisson process: the mean gap


def test_arrivals_repeat_with_their_seed() -> None:
    """Sides that take turns in a round are asked at the same moments."""
    assert arrivals(100, 50, seed=3) == arrivals(100, 50, seed=3) != arrivals(100, 50, seed=4)


def test_what_h2load_adds_to_each_gap_is_taken_off() -> None:
    """Gaps are shorter by what h2load waits too long, but never negative: moments stay in order."""
    assert paced([2.0, 2.1, 5.0]) == pytest.approx([1.5, 1.5, 3.9])
    moments = paced(arrivals(2000, 500, seed=3))
    assert moments == sorted(moments)
    assert len(moments) == 500
