"""All that is in a store, as the files of a policy repository."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from engine.storage.tree import EXTENSIONS, SCHEMAS
from extauthz.ctl import shown
from extauthz.pdp.admin_messages import ListPoliciesRequest

if TYPE_CHECKING:
    from collections.abc import Container

    from extauthz.ctl.client import Client

OF_THE_STORE: Final = ("hash", "sourceAttributes", "sourceFile", "storeIdentifer", "storeIdentifier")
"""Metadata that say where a policy was; in files they would be wrong as soon as one is moved."""


def exported(client: Client) -> tuple[dict[str, bytes], int, int]:
    """Return the files, and how many policies and schemas are in them; raises CtlError."""
    files: dict[str, bytes] = {}
    for policy in client.get_policies(client.list_policies(ListPoliciesRequest(include_disabled=True))):
        identifier = shown.row(policy).id
        path = _path(identifier, files)
        files[path] = _written(_own(policy.to_json()), path)
    policies = len(files)
    for schema in client.get_schemas(client.list_schemas()):
        files[f"{SCHEMAS}/{schema.id}"] = schema.definition
    return files, policies, len(files) - policies


def _path(identifier: str, taken: Container[str]) -> str:
    """Name the file of a policy: as it was called in a store of files, else after its key."""
    if identifier.lower().endswith(EXTENSIONS):
        return identifier
    stem = identifier.replace("/", "_")
    path, count = f"{stem}.yaml", 1
    while path in taken:
        count += 1
        path = f"{stem}-{count}.yaml"
    return path


def _written(document: dict[str, Any], path: str) -> bytes:
    if PurePosixPath(path).suffix.lower() == ".json":
        return json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"
    return shown.as_yaml(document).encode()


def _own(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the store has added."""
    metadata = {
        name: value for name, value in document.get("metadata", {}).items() if name not in OF_THE_STORE
    }
    return {
        name: metadata if name == "metadata" else value
        for name, value in document.items()
        if name != "metadata" or metadata
    }
