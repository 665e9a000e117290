"""The page that lists what the label server can be asked, of its schema alone: without scripts, and from no other host.

FastAPI's own pages load theirs from the network: without one they stay empty, and with one a script of another host may
ask for every scan.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATE = "overview.html"
POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}


def overview(schema: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        schema: of OpenAPI 3, as FastAPI makes it.
    """
    places = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    info = schema["info"]
    found = places.get_template(TEMPLATE).render(
        title=info["title"], version=info["version"], entries=list(_entries(schema))
    )
    return f"{found}\n"


def _entries(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield method, path, sentence and parameters of every endpoint."""
    for path, methods in schema.get("paths", {}).items():
        for method, told in methods.items():
            text = str(told.get("description") or told.get("summary") or "")
            rows = [_row(p["name"], p["in"], p.get("schema", {}), p.get("required", False)) for p in _of(told, schema)]
            first = text.strip().partition("\n\n")[0]
            yield {"method": method.upper(), "path": path, "text": first, "rows": [*rows, *_body(told, schema)]}


def _of(told: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parameters in path, query and headers."""
    return [_named(parameter, schema) for parameter in told.get("parameters", [])]


def _body(told: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the fields of a form or of JSON."""
    for kind, content in _named(told.get("requestBody", {}), schema).get("content", {}).items():
        fields = _named(content.get("schema", {}), schema)
        place = "JSON" if kind == "application/json" else "form"
        needed = fields.get("required", [])
        for name, field in fields.get("properties", {}).items():
            yield _row(name, place, field, name in needed)


def _row(name: str, place: str, field: Mapping[str, Any], required: bool) -> dict[str, str]:
    usual = field.get("default")
    told = "required" if required else "" if usual is None else json.dumps(usual)
    return {"name": name, "place": place, "kind": _kind(field), "usual": told}


def _kind(field: Mapping[str, Any]) -> str:
    """Return the type of a field in words."""
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    parts = [_kind(part) for word in ("anyOf", "allOf", "oneOf") for part in field.get(word, ())]
    return " or ".join(part for part in parts if part != "null") or str(field.get("type", ""))


def _named(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a part of a schema, which may only name the place where it stands: ``#/components/schemas/Name``."""
    if "$ref" not in part:
        return part
    found: Any = schema
    for word in str(part["$ref"]).removeprefix("#/").split("/"):
        found = found[word]
    return found
