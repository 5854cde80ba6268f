"""Addresses and ranges against Python's own ``ipaddress``."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.cel.library import network
from engine.cel.values import EvaluationError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6).filter(lambda address: getattr(address, "ipv4_mapped", None) is None)
addresses = st.one_of(v4, v6)


@settings(deadline=None)
@given(addresses)
def test_addresses_survive_the_way_through_text(address: IPv4Address | IPv6Address) -> None:
    """An address's canonical text is parsed to the same address, and is canonical."""
    parsed = network.parse_ip(str(address))
    assert parsed.address == address
    assert network.is_canonical(parsed.to_string())
    assert network.family(parsed) == address.version


@settings(deadline=None)
@given(addresses, addresses, st.integers(0, 128))
def test_containment_is_that_of_python_networks(
    inside: IPv4Address | IPv6Address, base: IPv4Address | IPv6Address, length: int
) -> None:
    """A range contains an address, and a range another, exactly when Python's networks say so."""
    assume(length <= base.max_prefixlen)
    text = f"{base}/{length}"
    python = ipaddress.ip_network(text, strict=False)
    parsed = network.parse_cidr(text)
    assert network.contains_ip(parsed, str(inside)) is (inside in python)
    assert network.masked(parsed).to_string() == str(python)
    assert network.is_mask(parsed) is (python.network_address == base)
    assert network.contains_cidr(parsed, f"{inside}/{inside.max_prefixlen}") is (inside in python)
    assert network.contains_cidr(network.parse_cidr(f"{inside}/{inside.max_prefixlen}"), text) is (
        length == base.max_prefixlen and inside == base
    )


@settings(deadline=None)
@given(v4, v4, st.integers(0, 32))
def test_mapped_addresses_count_as_ipv4_in_the_older_function(
    address: IPv4Address, base: IPv4Address, length: int
) -> None:
    """``inIPAddrRange`` answers alike for IPv4 addresses and ranges and for those mapped into IPv6."""
    wanted = address in ipaddress.ip_network(f"{base}/{length}", strict=False)
    for spelled in (str(address), f"::ffff:{address}"):
        for range_ in (f"{base}/{length}", f"::ffff:{base}/{length + 96}"):
            assert network.in_ip_address_range(spelled, range_) is wanted


@settings(deadline=None)
@given(st.text("0123456789abcdf:./% ", max_size=20))
def test_arbitrary_text_is_an_address_or_an_error(text: str) -> None:
    """No text makes the parsers raise anything but an evaluation error, and both ways of asking agree."""
    for parse, test in ((network.parse_ip, network.is_ip), (network.parse_cidr, network.is_cidr)):
        try:
            parse(text)
        except EvaluationError:
            assert not test(text)
        else:
            assert test(text)
