"""Holds an answer against its shape in the OpenAPI document, strictly: every field is there, and no field is there that the document does not have."""

from typing import Any

import jsonschema

from supervisor.adapters.http.shapes import SHAPES

OPEN = {"Report"}  # a dossier has a schema of its own (docs/dossier.schema.json)


def problems(shape: str | dict[str, Any], answer: object) -> list[str]:
    """What is wrong with *answer*, as a place and a sentence each."""
    schema = {"$ref": f"#/components/schemas/{shape}"} if isinstance(shape, str) else _closed(shape)
    closed = {name: one if name in OPEN else _closed(one) for name, one in SHAPES.items()}
    checker = jsonschema.Draft202012Validator({**schema, "components": {"schemas": closed}})
    return [f"{error.json_path}: {error.message[:300]}" for error in checker.iter_errors(answer)]


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema else {}
    return {name: _closed(one) for name, one in schema.items()} | more
