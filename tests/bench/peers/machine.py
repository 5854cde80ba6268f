"""The machine and the versions of everything: without them a figure says nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.bench import h2load
from tests.bench.peers import build, gateway
from tests.differential import oracle, peers


def described() -> dict[str, str]:
    """Describe machine and versions, as the report shows them."""
    return {
        "processor": _processor(),
        "cores": f"{os.cpu_count()}, shared by servers and load; nothing is pinned",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: _installed(name) for name in ("extauthz", "grpcio", "uvloop")},
        "h2load": h2load.version(),
        "Envoy": "none" if gateway.missing() else gateway.version(),
        "Cerbos": "none" if oracle.find_binary() is None else peers.VERSION,
        **build.versions(),
        "load of the machine at the start": " ".join(f"{each:.2f}" for each in os.getloadavg()),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
