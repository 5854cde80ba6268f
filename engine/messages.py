"""Fast protobuf classes, made of schemas that stand beside the modules that use them.

``make schemas`` writes the schemas, from what ``envoy-data-plane`` says of the messages. The descriptors live
in pools of our own: another package may register the same protos in the default pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

if TYPE_CHECKING:
    from google.protobuf import message

WELL_KNOWN_FILES = (any_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)

SCHEMA_SUFFIX = ".binpb"
"""Of files with schemas."""


def classes(schema: bytes, *names: str) -> tuple[type[message.Message], ...]:
    """Return a compiled class for each of the full *names* in a serialized ``FileDescriptorSet``."""
    pool = descriptor_pool.DescriptorPool()
    for module in WELL_KNOWN_FILES:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in descriptor_pb2.FileDescriptorSet.FromString(schema).file:
        pool.AddSerializedFile(file.SerializeToString())
    return tuple(message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
