"""``google.rpc.Status``: how an error with details travels over gRPC."""

from typing import Annotated, NamedTuple

from extauthz.pdp.schema import Tag, message


@message("google.protobuf.Any")
class AnyMessage(NamedTuple):
    """A message of any type, as its bytes."""

    type_url: Annotated[str, Tag(1)] = ""
    value: Annotated[bytes, Tag(2)] = b""


@message("google.rpc.Status")
class Status(NamedTuple):
    """A code, a sentence, and further messages."""

    code: Annotated[int, Tag(1)] = 0
    message: Annotated[str, Tag(2)] = ""
    details: Annotated[tuple[AnyMessage, ...], Tag(3)] = ()
