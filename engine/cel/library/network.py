"""IP addresses and CIDR ranges: the network extension of cel-go, and Cerbos's older ``inIPAddrRange``.

Parsing is strict, as in Go's ``net/netip``: no zones, no leading zeros, no spaces. The extension refuses IPv4
addresses written as IPv6 (``::ffff:1.2.3.4``) in either spelling; ``inIPAddrRange`` takes them for the IPv4
addresses they are.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.cel.library.arguments import string
from engine.cel.library.declaration import Declaration
from engine.cel.values import EvaluationError, NoSuchOverload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CACHED_ADDRESSES = 1024

MAX_ADDRESS = 64
"""Characters; the longest address has 45, with a prefix length 49."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LINK_LOCAL: Mapping[int, ipaddress.IPv4Network | ipaddress.IPv6Network] = {
    4: ipaddress.IPv4Network("169.254.0.0/16"),
    6: ipaddress.IPv6Network("fe80::/10"),
}

PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
PREFIX_LENGTH_WITH_ZEROS = re.compile(r"[0-9]{1,8}")

MAPPED_BITS = 96
"""The bits of ``::ffff:0:0``, which precede the IPv4 address in an IPv4-mapped one (RFC 4291, 2.5.5.2)."""


@dataclass(frozen=True, slots=True)
class IP:
    """An IP address (``net.IP``)."""

    type_name: ClassVar[str] = "net.IP"
    hashable: ClassVar[bool] = True

    address: Address

    def to_string(self) -> str:
        """``string(x)``: the canonical form of RFC 5952."""
        return str(self.address)


@dataclass(frozen=True, slots=True)
class CIDR:
    """An address with the *length* of its network's prefix (``net.CIDR``); its other bits are kept."""

    type_name: ClassVar[str] = "net.CIDR"
    hashable: ClassVar[bool] = True

    address: Address
    length: int

    def to_string(self) -> str:
        """``string(x)``: the address, with its bits after the prefix, and the length."""
        return f"{self.address}/{self.length}"

    @property
    def host_bits(self) -> int:
        """How many bits come after the prefix."""
        return self.address.max_prefixlen - self.length

    def contains(self, address: Address) -> bool:
        """Whether *address* has this prefix; addresses of the other family never have."""
        same_family = address.version == self.address.version
        return same_family and (int(self.address) ^ int(address)) >> self.host_bits == 0

    def masked(self) -> CIDR:
        """Return the same network with the bits after the prefix cleared."""
        network = int(self.address) >> self.host_bits << self.host_bits
        return CIDR(type(self.address)(network), self.length)


def _address(text: str) -> Address:
    """Parse without opinion on mapped addresses; raises ``ValueError``."""
    if len(text) > MAX_ADDRESS or "%" in text:
        raise ValueError(text)
    return ipaddress.IPv6Address(text) if ":" in text else ipaddress.IPv4Address(text)


def _is_mapped(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


def _refuse_mapped(address: Address, text: str) -> None:
    if _is_mapped(address):
        raise EvaluationError(f'IPv4-mapped IPv6 address "{text}" is not allowed')


@functools.lru_cache(maxsize=CACHED_ADDRESSES)
def parse_ip(text: str) -> IP:
    """Return the address that *text* is; raises :class:`EvaluationError`."""
    if "%" in text:
        raise EvaluationError(f'IP address "{text[:MAX_ADDRESS]}" with zone value is not allowed')
    try:
        address = _address(text)
    except ValueError:
        raise EvaluationError(
            f'IP Address "{text[:MAX_ADDRESS]}" parse error during conversion from string: unable to parse IP'
        ) from None
    _refuse_mapped(address, text)
    return IP(address)


@functools.lru_cache(maxsize=CACHED_ADDRESSES)
def parse_cidr(text: str) -> CIDR:
    """Return the range that *text* is; raises :class:`EvaluationError`."""
    before, slash, length = text.rpartition("/")
    try:
        address = _address(before)
        if not slash or not PREFIX_LENGTH.fullmatch(length) or int(length) > address.max_prefixlen:
            raise ValueError(text)
    except ValueError:
        raise EvaluationError(
            f'CIDR "{text[:MAX_ADDRESS]}" parse error during conversion from string'
        ) from None
    _refuse_mapped(address, text)
    return CIDR(address, int(length))


def _parses(parse: Callable[[str], object], text: object) -> bool:
    try:
        parse(string(text))
    except NoSuchOverload:
        raise
    except EvaluationError:
        return False
    return True


def is_ip(text: object) -> bool:
    """Whether *text* is an IP address."""
    return _parses(parse_ip, text)


def is_cidr(text: object) -> bool:
    """Whether *text* is a CIDR range."""
    return _parses(parse_cidr, text)


def ip(value: object) -> IP:
    """Return the address a string stands for, or that of a range."""
    return IP(value.address) if type(value) is CIDR else parse_ip(string(value))


def cidr(text: object) -> CIDR:
    """Return the range a string stands for."""
    return parse_cidr(string(text))


def is_canonical(text: object) -> bool:
    """Whether the address is written as RFC 5952 wants it: lower case, the longest run of zeros as ``::``."""
    return parse_ip(string(text)).to_string() == text


def _ip(value: object) -> Address:
    if type(value) is not IP:
        raise NoSuchOverload
    return value.address


def _cidr(value: object) -> CIDR:
    if type(value) is not CIDR:
        raise NoSuchOverload
    return value


def family(value: object) -> int:
    """4 or 6."""
    return _ip(value).version


def is_loopback(value: object) -> bool:
    """Whether the address is in ``127.0.0.0/8``, or is ``::1``."""
    return _ip(value).is_loopback


def is_unspecified(value: object) -> bool:
    """Whether the address is ``0.0.0.0`` or ``::``."""
    return _ip(value).is_unspecified


def is_link_local_unicast(value: object) -> bool:
    """Whether the address is in ``169.254.0.0/16`` or ``fe80::/10``."""
    address = _ip(value)
    return address in LINK_LOCAL[address.version]


def is_link_local_multicast(value: object) -> bool:
    """Whether the address is in ``224.0.0.0/24``, or an IPv6 multicast address of link-local scope."""
    address = _ip(value)
    if address.version == 4:
        return int(address) >> 8 == 0xE00000
    return int(address) >> 112 & 0xFF0F == 0xFF02


def is_global_unicast(value: object) -> bool:
    """Whether the address is of none of the special kinds; private ones count (as in Go)."""
    address = _ip(value)
    broadcast = address.version == 4 and int(address) == 0xFFFFFFFF
    special = address.is_unspecified or address.is_loopback or address.is_multicast or broadcast
    return not special and address not in LINK_LOCAL[address.version]


def contains_ip(value: object, address: object) -> bool:
    """Whether the address, or the one a string stands for, is in the range."""
    network = _cidr(value)
    return network.contains(address.address if type(address) is IP else parse_ip(string(address)).address)


def contains_cidr(value: object, other: object) -> bool:
    """Whether all of another range, or of the one a string stands for, is in the range."""
    network = _cidr(value)
    inner = other if type(other) is CIDR else parse_cidr(string(other))
    return network.length <= inner.length and network.contains(inner.address)


def prefix_length(value: object) -> int:
    """How many bits the prefix has."""
    return _cidr(value).length


def masked(value: object) -> CIDR:
    """Return the range with the bits after the prefix cleared."""
    return _cidr(value).masked()


def is_mask(value: object) -> bool:
    """Whether the bits after the prefix are clear already."""
    return _cidr(value) == _cidr(value).masked()


def in_ip_address_range(address: object, network: object) -> bool:
    """Whether *address* is in the CIDR range *network*, both strings (Go's ``net.IPNet.Contains``)."""
    return _lenient_cidr(string(network)).contains(_lenient_ip(string(address)))


@functools.lru_cache(maxsize=CACHED_ADDRESSES)
def _lenient_ip(text: str) -> Address:
    try:
        address = _address(text)
    except ValueError:
        raise EvaluationError(f"invalid IP address: {text[:MAX_ADDRESS]}") from None
    return _unmapped(address)


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


@functools.lru_cache(maxsize=CACHED_ADDRESSES)
def _lenient_cidr(text: str) -> CIDR:
    before, _, length = text.partition("/")
    try:
        address = _address(before)
        if not PREFIX_LENGTH_WITH_ZEROS.fullmatch(length) or int(length) > address.max_prefixlen:
            raise ValueError(text)
    except ValueError:
        raise EvaluationError(f"invalid CIDR address: {text[:MAX_ADDRESS]}") from None
    network = CIDR(address, int(length)).masked()
    if _is_mapped(network.address):
        return CIDR(_unmapped(network.address), network.length - MAPPED_BITS)
    return network


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "isIP": is_ip,
    "isCIDR": is_cidr,
    "ip": ip,
    "cidr": cidr,
    "ip.isCanonical": is_canonical,
    "family": family,
    "isLoopback": is_loopback,
    "isUnspecified": is_unspecified,
    "isLinkLocalUnicast": is_link_local_unicast,
    "isLinkLocalMulticast": is_link_local_multicast,
    "isGlobalUnicast": is_global_unicast,
    "containsIP": contains_ip,
    "containsCIDR": contains_cidr,
    "prefixLength": prefix_length,
    "masked": masked,
    "isMask": is_mask,
    "inIPAddrRange": in_ip_address_range,
}

TYPES: tuple[str, ...] = (IP.type_name, CIDR.type_name)

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration("isIP", "is_ip", ("string",), "bool"),
    Declaration("isCIDR", "is_cidr", ("string",), "bool"),
    Declaration("ip", "string_to_ip", ("string",), "net.IP"),
    Declaration("ip", "cidr_ip", ("net.CIDR",), "net.IP", member=True),
    Declaration("cidr", "string_to_cidr", ("string",), "net.CIDR"),
    Declaration("ip.isCanonical", "ip_is_canonical", ("string",), "bool"),
    Declaration("family", "ip_family", ("net.IP",), "int", member=True),
    Declaration("isLoopback", "ip_is_loopback", ("net.IP",), "bool", member=True),
    Declaration("isUnspecified", "ip_is_unspecified", ("net.IP",), "bool", member=True),
    Declaration("isLinkLocalUnicast", "ip_is_link_local_unicast", ("net.IP",), "bool", member=True),
    Declaration("isLinkLocalMulticast", "ip_is_link_local_multicast", ("net.IP",), "bool", member=True),
    Declaration("isGlobalUnicast", "ip_is_global_unicast", ("net.IP",), "bool", member=True),
    Declaration("containsIP", "cidr_contains_ip", ("net.CIDR", "net.IP"), "bool", member=True),
    Declaration("containsIP", "cidr_contains_ip_string", ("net.CIDR", "string"), "bool", member=True),
    Declaration("containsCIDR", "cidr_contains_cidr", ("net.CIDR", "net.CIDR"), "bool", member=True),
    Declaration("containsCIDR", "cidr_contains_cidr_string", ("net.CIDR", "string"), "bool", member=True),
    Declaration("prefixLength", "cidr_prefix_length", ("net.CIDR",), "int", member=True),
    Declaration("masked", "cidr_masked", ("net.CIDR",), "net.CIDR", member=True),
    Declaration("isMask", "cidr_is_mask", ("net.CIDR",), "bool", member=True),
    Declaration("string", "ip_to_string", ("net.IP",), "string"),
    Declaration("string", "cidr_to_string", ("net.CIDR",), "string"),
    Declaration("inIPAddrRange", "inIPAddrRange_string", ("string", "string"), "bool", member=True),
)
