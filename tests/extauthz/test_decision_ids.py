from extauthz.decision_ids import ALPHABET, decision_ids


def number(text: str) -> int:
    """Read Crockford's base 32, independently of the code under test."""
    result = 0
    for character in text:
        result = result * 32 + ALPHABET.index(character)
    return result


def test_an_id_holds_the_time_and_the_counter() -> None:
    """A ULID is 48 bits of milliseconds and 80 bits of counter."""
    identifier = decision_ids(lambda: 1_469_918_176_385_999_999, start=(7 << 60) + 5)()
    assert number(identifier[:10]) == 1_469_918_176_385
    assert number(identifier[10:]) == (7 << 60) + 5


def test_ids_of_one_millisecond_are_distinct_and_rising() -> None:
    """The counter moves on at every id, so that ids made in one millisecond still sort by order."""
    next_id = decision_ids(lambda: 1_000_000, start=(1 << 20) - 2)
    made = [next_id() for _ in range(5)]
    assert [number(one[10:]) for one in made] == [(1 << 20) - 2 + step for step in range(5)]
    assert made == sorted(made)


def test_the_counter_wraps_at_80_bits() -> None:
    """After the last counter value comes 0, and an id keeps its 26 characters."""
    next_id = decision_ids(lambda: 1_000_000, start=(1 << 80) - 1)
    first, second = next_id(), next_id()
    assert (number(first[10:]), number(second[10:])) == ((1 << 80) - 1, 0)
    assert len(first) == len(second) == 26


def test_two_processes_do_not_meet() -> None:
    """Each call of the factory draws its own 80 bits."""
    assert decision_ids()() != decision_ids()()
