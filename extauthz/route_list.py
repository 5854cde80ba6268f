"""The routes of a configuration as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from extauthz.config import ExtAuthz, Route

ANY: Final = Text("any", "dim")
NO_POLICY: Final = {"allow": Text("allowed, no policy is asked", "yellow"), "deny": Text("denied", "red")}


def route_list(settings: ExtAuthz) -> Table:
    """List every route: what it matches, who may ask, and what policies are asked."""
    table = Table()
    for column in ("methods and actions", "host", "path", "who", "resource", "id"):
        table.add_column(column, overflow="fold")  # a path that is cut off says nothing
    for route in settings.routes:
        table.add_row(
            _methods(route),
            _hosts(route),
            Text(str(route.match.path)),
            _who(settings, route),
            _resource(route),
            route.id,
        )
    return table


def _methods(route: Route) -> Text:
    if route.actions is not None:
        return Text("\n".join(f"{method}: {action.text}" for method, action in route.actions.items()))
    methods = Text(", ".join(route.match.methods)) if route.match.methods else ANY
    return methods if route.action is None else Text.assemble(methods, f": {route.action.text}")


def _hosts(route: Route) -> Text:
    return Text("\n".join(map(str, route.match.hosts))) if route.match.hosts else ANY


def _who(settings: ExtAuthz, route: Route) -> Text:
    if route.is_anonymous:
        return Text("anybody")
    names = ", ".join(identity.name for identity in settings.identities(route))
    return Text(f"{names} or anybody" if route.anonymous == "allow" else names)


def _resource(route: Route) -> Text:
    if route.resource is None:
        return NO_POLICY.get(route.decision, Text(""))
    return Text(f"{route.resource.kind.text} {route.resource.id.text}")
