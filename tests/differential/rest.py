"""The two servers over REST: the same requests, whole answers."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import json_value
from tests.differential.sides import asking_cerbos
from tests.extauthz.pdp.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from tests.differential.sides import Cerbos, Configuration

UNORDERED = ("outputs", "effectiveDerivedRoles", "validationErrors")


class Said(NamedTuple):
    """What a server has answered."""

    status: int
    body: Any


class Servers(NamedTuple):
    """Both servers over the same policies."""

    ours: httpx.Client
    cerbos: Cerbos

    def ask(self, path: str, body: bytes) -> tuple[Said, Said]:
        """POST the same to both; our answer comes first."""
        ours = self.ours.post(path, content=body, headers={"Content-Type": "application/json"})
        theirs = self.cerbos.rest(path, body)
        return Said(ours.status_code, comparable(ours.json())), Said(theirs[0], comparable(theirs[1]))


@contextlib.contextmanager
def servers(directory: Path, configuration: Configuration) -> Iterator[Servers]:
    """Run both servers by the same configuration."""
    blocks = configuration.blocks() | {
        "storage": {"driver": "disk", "disk": {"directory": str(directory)}},
    }
    with (
        asking_cerbos(directory, configuration) as cerbos,
        running(json.dumps(blocks)) as service,
        service.served.client() as client,
    ):
        yield Servers(client, cerbos)


def comparable(body: Any) -> Any:
    """Take away what is another in each answer, and put in order what has none.

    The id of the call is random, and so is whether Go's protobuf writes a blank as one that does not break.
    """
    if isinstance(body, dict):
        return {
            name: sorted(map(comparable, value), key=json.dumps)
            if name in UNORDERED and isinstance(value, list)
            else comparable(value)
            for name, value in body.items()
            if name != "cerbosCallId"
        }
    if isinstance(body, list):
        return [comparable(item) for item in body]
    return body.replace("\xa0", " ") if isinstance(body, str) else json_value(body)
