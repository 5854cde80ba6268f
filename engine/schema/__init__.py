"""Attribute schemas: where they come from, what they say about attributes, and in which words."""

from engine.schema.attached import AttachedSchemas, Schema, Schemas, schema_faults

__all__ = ["AttachedSchemas", "Schema", "Schemas", "schema_faults"]
