"""Attribute schemas: JSON Schemas that a policy asks of principals' and resources' attributes.

The schemas of a table are read and compiled when the table is built. Checking a question is then one call
into compiled code for each schema; regular expressions are RE2's, so their time is linear in hostile input,
and the depth of attributes has a limit. Of a chain of scopes only the root policy's schemas count.

Rules and words are Cerbos's (``internal/schema``): draft 2020-12 unless ``$schema`` names another, ``format``
and ``contentEncoding`` are asserted, the leaves of the validator's errors are reported.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import orjson

from engine.globs import Matcher, matcher
from engine.model import ValidationError
from engine.schema_keywords import FORMATS, KEYWORDS
from engine.schema_messages import Leaf, leaves, pointer
from engine.schema_sources import MissingSchemaError, SchemaError, Sources, TrailingText, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engine import policy as p
    from engine.document import Fault
    from engine.model import JsonValue

INVALID_SCHEMA = "invalid schema"

PRINCIPAL = "SOURCE_PRINCIPAL"
RESOURCE = "SOURCE_RESOURCE"

MAX_ERRORS = 256
"""How many errors of one value are looked at: hostile attributes may break a schema a million times."""

LATEST = "https://json-schema.org/draft/2020-12/schema"
DRAFTS: Mapping[str, str] = {
    "json-schema.org/schema": LATEST,
    "json-schema.org/draft/2020-12/schema": LATEST,
    "json-schema.org/draft/2019-09/schema": "https://json-schema.org/draft/2019-09/schema",
    "json-schema.org/draft-07/schema": "http://json-schema.org/draft-07/schema#",
    "json-schema.org/draft-06/schema": "http://json-schema.org/draft-06/schema#",
    "json-schema.org/draft-04/schema": "http://json-schema.org/draft-04/schema#",
}
"""The drafts that can be named by ``$schema``, with or without TLS, with or without an empty fragment."""

_OPTIONS: Mapping[str, Any] = {
    "pattern_options": jsonschema_rs.RegexOptions(),
    "validate_formats": True,
    "formats": FORMATS,
    "keywords": KEYWORDS,
    "offline": True,
}


class Schema:
    """One compiled schema, with everything that it refers to."""

    def __init__(self, url: str, registry: jsonschema_rs.Registry) -> None:
        self.url = url
        self._registry = registry
        self._validator = self._compiled(url)
        self._parts: dict[str, Any] = {}

    def _compiled(self, url: str) -> Any:
        return jsonschema_rs.validator_for({"$ref": url}, registry=self._registry, **_OPTIONS)

    def errors(self, value: JsonValue) -> list[Leaf]:
        """Return what is wrong with *value*."""
        if self._validator.is_valid(value):
            return []
        found = itertools.islice(self._validator.iter_errors(value), MAX_ERRORS)
        return leaves(found, _Parts(self._registry, self._part))

    def _part(self, url: str) -> Any:
        """Return the validator for a part of the schema; there are as many as the schema has keywords."""
        if url not in self._parts:
            self._parts[url] = self._compiled(url)
        return self._parts[url]

    @property
    def contents(self) -> Any:
        """The schema itself."""
        return self._registry.resolver(self.url).lookup(self.url).contents

    def resolved(self, reference: str, base: str) -> tuple[Any, str]:
        """Return what *reference* leads to from the document at *base*, and the document it is in."""
        found = self._registry.resolver(base).lookup(reference)
        return found.contents, found.resolver.base_uri


@dataclass(frozen=True, slots=True)
class _Parts:
    """Looks up what an error does not tell."""

    registry: jsonschema_rs.Registry
    part: Callable[[str], Any]

    def value(self, error: jsonschema_rs.ValidationError, keyword: str) -> Any:
        url = self._beside(error, keyword)
        if url is None:
            return None
        base, _, fragment = url.partition("#")
        try:
            return self.registry.resolver(base).lookup(f"#{fragment}").contents
        except jsonschema_rs.ReferencingError:
            return None

    def errors(
        self, error: jsonschema_rs.ValidationError, keyword: str, instance: Any
    ) -> list[jsonschema_rs.ValidationError]:
        url = self._beside(error, keyword)
        if url is None:
            return []
        return list(itertools.islice(self.part(url).iter_errors(instance), MAX_ERRORS))

    def _beside(self, error: jsonschema_rs.ValidationError, keyword: str) -> str | None:
        """Return the URL of *keyword* in the schema object that the error's keyword stands in."""
        location = error.absolute_keyword_location
        if location is None:
            return None
        base = location.partition("#")[0]
        return f"{base}#{pointer([*error.schema_path[:-1], keyword])}"


class Schemas:
    """The JSON Schemas of one state of the store, each compiled once."""

    def __init__(
        self, files: Mapping[str, bytes] | None = None, *, fetch: Callable[[str], bytes] = fetch
    ) -> None:
        self._sources = Sources(files or {}, fetch)
        self._known: dict[str, Schema | SchemaError] = {}

    def updated(self, files: Mapping[str, bytes]) -> Schemas:
        """Return the schemas of another state of the store; what came from the web is not fetched again."""
        if files == self._sources.files:
            return self
        schemas = Schemas(files, fetch=self._sources.fetch)
        schemas._sources.fetched = self._sources.fetched
        return schemas

    def get(self, ref: str) -> Schema | SchemaError:
        """Return the schema that *ref* names, or why it cannot be used. Reads and compiles on first use."""
        if ref not in self._known:
            try:
                self._known[ref] = self._compiled(ref)
            except SchemaError as error:
                self._known[ref] = error
        return self._known[ref]

    def _compiled(self, ref: str) -> Schema:
        url = ref.partition("#")[0]
        reading = _Reading(self._sources, url)
        try:
            registry = jsonschema_rs.Registry([(url, reading.document(url))], retriever=reading.document)
            return Schema(ref, registry)
        except MissingSchemaError as error:
            raise SchemaError(reading.missing(error)) from None
        except SchemaError as error:
            raise SchemaError(f"jsonschema {ref} compilation failed: {error}") from None
        except (ValueError, jsonschema_rs.ReferencingError, jsonschema_rs.ValidationError) as error:
            cause = reading.failure or error
            if isinstance(cause, MissingSchemaError):
                raise SchemaError(reading.missing(cause)) from None
            told = getattr(cause, "message", None) or str(cause)
            raise SchemaError(f"jsonschema {ref} compilation failed: {told}") from None

    def attached(self, policy: p.Schemas) -> AttachedSchemas | None:
        """Return what a policy asks of attributes, ``None`` when it asks nothing."""
        parts = tuple(self._attached(policy))
        return AttachedSchemas(parts) if parts else None

    def _attached(self, policy: p.Schemas) -> Iterator[AttachedSchema]:
        for source, word, schema in (
            (PRINCIPAL, "principal", policy.principal_schema),
            (RESOURCE, "resource", policy.resource_schema),
        ):
            if schema is not None:
                found = self.get(schema.ref)
                ignored = schema.ignore_when.actions if schema.ignore_when else ()
                told = load_failure(word, schema.ref, found) if isinstance(found, SchemaError) else ""
                usable = None if isinstance(found, SchemaError) else found
                yield AttachedSchema(source, usable, told, tuple(map(matcher, ignored)))


class _Reading:
    """Hands documents to the validator, and keeps why one of them could not be had."""

    def __init__(self, sources: Sources, root: str) -> None:
        self._sources = sources
        self._root = root
        self._asked = root
        self.failure: SchemaError | None = None

    def document(self, url: str) -> Any:
        self._asked = url
        try:
            found = self._sources.document(url)
            check_is_schema(found.value if isinstance(found, TrailingText) else found)
            if isinstance(found, TrailingText):
                raise SchemaError(
                    f"invalid json {url}: invalid character '{found.character}' after the value"
                )
        except SchemaError as error:
            self.failure = self.failure or error
            raise
        return found

    def missing(self, error: MissingSchemaError) -> str:
        via = "" if self._asked == self._root else f" referenced by {self._root}"
        return f"schema {error}{via} doesn't exist"


def check_is_schema(document: Any) -> None:
    """Check a document against the meta-schema of its draft, which it then names as the validator knows it.

    Raises:
        SchemaError: it is not a schema; the message is the first fault.

    """
    url = _meta_schema(document)
    if isinstance(document, dict) and "$schema" in document:
        document["$schema"] = url
    meta = jsonschema_rs.validator_for(
        {"$schema": url, "$ref": url}, validate_formats=True, formats=FORMATS, offline=True
    )
    for error in meta.iter_errors(document):
        first = _first(error)
        path = pointer(first.evaluation_path[1:])
        at = pointer(first.instance_path)
        told = leaves([first], _MetaSchema())[0].message
        raise SchemaError(f"'{at}' does not validate with {url.removesuffix('#')}#{path}: {told}")


def _first(error: jsonschema_rs.ValidationError) -> jsonschema_rs.ValidationError:
    """Return the first cause of an error, that of the first branch where it has several."""
    while error.kind.name in ("anyOf", "oneOf"):
        branches = [branch for branch in error.kind.as_dict()["context"] if branch]
        if not branches:
            break
        error = branches[0][0]
    return error


class _MetaSchema:
    """Stands for the meta-schemas, which are inside of the validator: all they say twice is a type."""

    def value(self, error: jsonschema_rs.ValidationError, keyword: str) -> Any:
        """Return the types in the order in which the meta-schemas have them: ``object or boolean``."""
        return sorted(error.kind.as_dict()["types"], reverse=True) if keyword == "type" else None

    def errors(self, _error: jsonschema_rs.ValidationError, _keyword: str, _instance: Any) -> list[Any]:
        """Return nothing: no meta-schema uses keywords that need it."""
        return []


def _meta_schema(document: Any) -> str:
    named = document.get("$schema", LATEST) if isinstance(document, dict) else LATEST
    if not isinstance(named, str):
        raise SchemaError("`$schema` is not a string")
    found = DRAFTS.get(named.removesuffix("#").partition("://")[2])
    if found is None:
        raise SchemaError(f"no draft of JSON Schema is called {named}")
    return found


def load_failure(word: str, ref: str, error: SchemaError) -> str:
    """Say that the schema for the attributes of a principal or resource (*word*) cannot be used."""
    return f'Failed to load {word} schema "{ref}": {error}'


def schema_faults(policy: p.Policy, asked: p.Schemas, schemas: Schemas) -> Iterator[Fault]:
    """Yield a fault for each schema that *policy* asks for and that cannot be used."""
    for field, word, schema in (
        ("principalSchema", "principal", asked.principal_schema),
        ("resourceSchema", "resource", asked.resource_schema),
    ):
        found = None if schema is None else schemas.get(schema.ref)
        if schema is not None and isinstance(found, SchemaError):
            path = ("resourcePolicy", "schemas", field, "ref")
            message = load_failure(word, schema.ref, found)
            yield policy.document.fault(message, path, key=True, kind=INVALID_SCHEMA)


# -- checking ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttachedSchema:
    """A schema as a policy asks for it: of whose attributes, and for which actions not."""

    source: str
    schema: Schema | None
    failure: str
    """Why there is no schema."""

    ignored: tuple[Matcher, ...]

    def errors(
        self, attributes: Mapping[str, JsonValue], actions: tuple[str, ...], *, optional: bool
    ) -> Iterator[ValidationError]:
        """Say what is wrong with *attributes*; with *optional* none of them need be there."""
        if self.ignored and all(any(ignores(action) for ignores in self.ignored) for action in actions):
            return
        if self.schema is None:
            yield ValidationError("", self.failure, self.source)
            return
        told = not_json(attributes)
        if told:
            yield ValidationError("/", told, self.source)
            return
        for leaf in self.schema.errors(attributes):
            if not (optional and leaf.keyword[-1:] == ("required",)):
                yield ValidationError(leaf.path, leaf.message, self.source)


@dataclass(frozen=True, slots=True)
class AttachedSchemas:
    """Everything that a policy asks of attributes."""

    parts: tuple[AttachedSchema, ...]

    def errors(
        self,
        principal: Mapping[str, JsonValue],
        resource: Mapping[str, JsonValue],
        actions: tuple[str, ...],
        *,
        planning: bool = False,
    ) -> tuple[ValidationError, ...]:
        """Return what is wrong with the attributes of a question.

        With *planning* the resource is not known yet: attributes of it that are required may be missing.
        """
        return tuple(
            error
            for part in self.parts
            for error in part.errors(
                principal if part.source == PRINCIPAL else resource,
                actions,
                optional=planning and part.source == RESOURCE,
            )
        )


def not_json(attributes: Mapping[str, JsonValue]) -> str:
    """Say why attributes are no JSON that a schema can be asked about, empty when they are.

    That is text with lone surrogates, and nesting beyond 254 levels, which the validator's stack is safe
    with.
    """
    try:
        orjson.dumps(attributes)
    except (TypeError, RecursionError) as error:
        return f"the attributes are not JSON: {error}"
    return ""
