"""The directions of imports, as they stand in the source."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from engine.storage import DRIVERS as STORES

ROOT = Path(__file__).resolve().parents[1]

# folder -> what its modules may not import, except for what is named after it
MAY_NOT_IMPORT = [
    ("engine", "extauthz", ()),
    ("engine/cel", "engine", ("engine.cel", "engine.messages")),
    # databases hold policies as messages, under a hash of their key; a directory shows what has changed in it
    (
        "engine/storage",
        "engine",
        ("engine.storage", "engine.document", "engine.patched", "engine.policy_messages"),
    ),
]

# reached through their table only, which imports them on first use
DRIVERS = sorted(driver.target.partition(":")[0] for driver in STORES.values())


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the full names of everything that a module imports, types included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert node.level == 0, f"{path}: imports are absolute"
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize(("folder", "package", "exceptions"), MAY_NOT_IMPORT)
def test_inner_layers_do_not_know_outer_ones(folder: str, package: str, exceptions: tuple[str, ...]) -> None:
    """Imports go one way."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        for name in sorted(imported(path))
        if within(name, package) and not any(within(name, allowed) for allowed in exceptions)
    ]
    assert modules(folder)
    assert wrong == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_drivers_are_reached_through_their_table(driver: str) -> None:
    """No module imports a driver: the table does, when one is asked for."""
    users = {
        str(path.relative_to(ROOT))
        for folder in ("engine", "extauthz")
        for path in modules(folder)
        if any(within(name, driver) for name in imported(path))
    }
    assert users == set()


def test_opentelemetry_is_known_to_one_module() -> None:
    """Only ``extauthz/telemetry.py`` imports OpenTelemetry, and the client library of Prometheus."""
    foreign = ("opentelemetry", "prometheus_client")
    users = {
        str(path.relative_to(ROOT))
        for folder in ("engine", "extauthz")
        for path in modules(folder)
        if any(within(name, each) for name in imported(path) for each in foreign)
    }
    assert users == {"extauthz/telemetry.py"}


def test_every_driver_in_the_table_can_be_imported() -> None:
    """Each row of the table leads to a class that can be made from settings and read."""
    for row in STORES.values():
        module, _, name = row.target.partition(":")
        cls = getattr(import_module(module), name)
        assert callable(cls.from_settings)
        assert callable(cls.read)
