"""The admin API of a server, ours or Cerbos's, call by call over gRPC."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import grpc

from extauthz.ctl.connection import CtlError
from extauthz.pdp import admin_messages as messages
from extauthz.pdp import admin_methods as methods
from extauthz.pdp.messages import ServerInfoRequest
from extauthz.pdp.rpc import DETAILS
from extauthz.pdp.services import CODEC, SERVER_INFO
from extauthz.pdp.status import Status
from extauthz.pdp.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from extauthz.ctl.connection import Connection
    from extauthz.pdp.admin_messages import Policy, Schema
    from extauthz.pdp.method import Method

GET_AT_A_TIME: Final = 25
"""Policies or schemas that are fetched with one call."""
IDS_AT_A_TIME: Final = 20
"""Policies that one call may delete or disable: a rule of the API."""

HINTS: Final = {
    grpc.StatusCode.UNAVAILABLE: "is it running, is the address right, does it talk TLS (`--plaintext`)?",
    grpc.StatusCode.UNAUTHENTICATED: "see `--username`, `--password` and their environment variables",
    grpc.StatusCode.DEADLINE_EXCEEDED: "see `--timeout`",
}
_UNSERVED: Final = "the server has no admin API: it has to be enabled in its configuration"


class Client:
    """Calls of the admin API over one channel; each raises :class:`CtlError`."""

    def __init__(self, channel: grpc.Channel, connection: Connection) -> None:
        self._channel = channel
        self._connection = connection
        given = f"{connection.username}:{connection.password}".encode()
        self._metadata = (("authorization", f"Basic {base64.b64encode(given).decode()}"),)

    def call(self, method: Method, request: Any) -> Any:
        """Make a call."""
        encode, decode = CODEC.encoder(method.request), CODEC.decoder(method.response)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            f"/{method.service}/{method.name}"
        )
        try:
            return decode(call(encode(request), timeout=self._connection.timeout, metadata=self._metadata))
        except WireError as error:
            raise CtlError(f"`{self._connection.server}` answered something else: {error}") from None
        except grpc.RpcError as error:
            raise self._in_words(error) from None

    def _in_words(self, error: grpc.RpcError) -> CtlError:
        code, told = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNIMPLEMENTED and told.lower().rstrip("!") in {"method not found", ""}:
            return CtlError(_UNSERVED)
        if code is grpc.StatusCode.UNIMPLEMENTED and "unknown service" in told:
            return CtlError(_UNSERVED)
        hint = f" ({HINTS[code]})" if code in HINTS and not _is_of_the_store(code, told) else ""
        return CtlError(f"{told or code.name}{hint}{''.join(_reasons(error))}")

    # -- the calls -----------------------------------------------------------------------------------------

    def list_policies(self, request: messages.ListPoliciesRequest) -> tuple[str, ...]:
        """Return the ids of policies."""
        found: tuple[str, ...] = self.call(methods.LIST_POLICIES, request).policy_ids
        return found

    def get_policies(self, ids: Sequence[str]) -> Iterator[Policy]:
        """Fetch policies, a few at a time; those that are not there are left out."""
        for some in batches(tuple(dict.fromkeys(ids)), GET_AT_A_TIME):
            yield from self.call(methods.GET_POLICY, messages.GetPolicyRequest(some)).policies

    def put_policies(self, policies: Sequence[Policy]) -> None:
        """Put policies, with one call."""
        self.call(methods.ADD_OR_UPDATE_POLICY, messages.AddOrUpdatePolicyRequest(tuple(policies)))

    def delete_policies(self, ids: Sequence[str]) -> int:
        """Delete policies; return how many there were."""
        return sum(
            self.call(methods.DELETE_POLICY, messages.DeletePolicyRequest(some)).deleted_policies
            for some in batches(tuple(dict.fromkeys(ids)), IDS_AT_A_TIME)
        )

    def disable_policies(self, ids: Sequence[str]) -> int:
        """Disable policies; return how many there are."""
        return sum(
            self.call(methods.DISABLE_POLICY, messages.DisablePolicyRequest(some)).disabled_policies
            for some in batches(tuple(dict.fromkeys(ids)), IDS_AT_A_TIME)
        )

    def enable_policies(self, ids: Sequence[str]) -> int:
        """Enable policies; return how many there are."""
        request = messages.EnablePolicyRequest(tuple(dict.fromkeys(ids)))
        found: int = self.call(methods.ENABLE_POLICY, request).enabled_policies
        return found

    def inspect_policies(self, request: messages.InspectPoliciesRequest) -> Any:
        """Tell what policies refer to, by their keys."""
        return self.call(methods.INSPECT_POLICIES, request).results

    def list_schemas(self) -> tuple[str, ...]:
        """Return the ids of schemas."""
        found: tuple[str, ...] = self.call(methods.LIST_SCHEMAS, messages.ListSchemasRequest()).schema_ids
        return found

    def get_schemas(self, ids: Sequence[str]) -> Iterator[Schema]:
        """Fetch schemas, a few at a time."""
        for some in batches(tuple(dict.fromkeys(ids)), GET_AT_A_TIME):
            yield from self.call(methods.GET_SCHEMA, messages.GetSchemaRequest(some)).schemas

    def put_schemas(self, schemas: Sequence[Schema]) -> None:
        """Put schemas, with one call."""
        self.call(methods.ADD_OR_UPDATE_SCHEMA, messages.AddOrUpdateSchemaRequest(tuple(schemas)))

    def delete_schemas(self, ids: Sequence[str]) -> int:
        """Delete schemas; return how many there were."""
        request = messages.DeleteSchemaRequest(tuple(dict.fromkeys(ids)))
        found: int = self.call(methods.DELETE_SCHEMA, request).deleted_schemas
        return found

    def reload_store(self, *, wait: bool) -> None:
        """Let the server read its store again."""
        self.call(methods.RELOAD_STORE, messages.ReloadStoreRequest(wait))

    def purge_revisions(self, keep_last: int) -> int:
        """Forget revisions; return how many."""
        request = messages.PurgeStoreRevisionsRequest(keep_last)
        found: int = self.call(methods.PURGE_STORE_REVISIONS, request).affected_rows
        return found

    def server_version(self) -> str:
        """Tell the version of the server."""
        found: str = self.call(SERVER_INFO, ServerInfoRequest()).version
        return found


def _is_of_the_store(code: grpc.StatusCode, told: str) -> bool:
    """Tell whether it is the server that says so: it was reached, its store was not."""
    return code is grpc.StatusCode.UNAVAILABLE and "store" in told


def batches(items: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    """Split *items*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _reasons(error: grpc.RpcError) -> Iterator[str]:
    """Say why policies have to stay, from the details of an error: Cerbos says it nowhere else."""
    told = error.details() or ""
    pairs: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment] # the stubs do not know that it is a tuple
    details = dict(pairs).get(DETAILS)
    for policy, needs in _integrity(details if isinstance(details, bytes) else b"").items():
        for reason in _needs(needs):
            if reason not in told:
                yield f"\n  `{policy}` is needed by {reason}"


def _needs(needs: messages.IntegrityErrors) -> Iterator[str]:
    if needs.breaks_scope_chain is not None:
        yield ", ".join(f"`{each}`" for each in needs.breaks_scope_chain.descendants)
    if needs.required_by_other_policies is not None:
        yield ", ".join(f"`{each}`" for each in needs.required_by_other_policies.dependents)


def _integrity(value: bytes) -> dict[str, messages.IntegrityErrors]:
    found: dict[str, messages.IntegrityErrors] = {}
    try:
        for detail in CODEC.decoder(Status)(value).details:
            if detail.type_url.endswith(
                "PolicyErrorDetails"
            ):  # of deleting and of disabling, the same fields
                found.update(CODEC.decoder(messages.DeletePolicyErrorDetails)(detail.value).errors)
    except WireError:
        return {}
    return found
