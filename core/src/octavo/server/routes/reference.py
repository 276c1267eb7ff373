"""``/docs``: the server's own description as a page to read; no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

__all__ = ["reference_page", "router"]

router = APIRouter(include_in_schema=False)

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, h2 { font-family: ui-monospace, monospace; }
h2 { font-size: 1rem; margin: 2rem 0 .25rem; border-top: 1px solid #8884; padding-top: 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
td, th { text-align: left; vertical-align: top; padding: .2rem .75rem .2rem 0; }
td + td { overflow-wrap: anywhere; }
summary { cursor: pointer; }
"""


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Every path with its parameters."""
    return HTMLResponse(reference_page(request.app.openapi()), headers=_HEADERS)


def reference_page(document: dict[str, Any]) -> str:
    """An OpenAPI document as HTML."""
    about = document["info"]
    body = "\n".join(
        _operation(document, path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    title = escape(f"{about['title']} {about['version']}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(about.get('description', ''))} "
        'For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"{body}</body></html>"
    )


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    about = escape(operation.get("description") or operation.get("summary", ""))
    rows = "".join(_rows(document, operation))
    table = f"<details><summary>Parameters</summary><table>{rows}</table></details>" if rows else ""
    return f"<h2>{escape(method.upper())} {escape(path)}</h2><p>{about}</p>{table}"


def _rows(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        yield _row(
            parameter["name"],
            parameter.get("schema", {}),
            f"in the {parameter['in']}",
            is_required=parameter.get("required", False),
        )
    content = operation.get("requestBody", {}).get("content", {})
    schema = _resolved(document, content.get("application/json", {}).get("schema", {}))
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        yield _row(name, field, field.get("description", ""), is_required=name in required)


def _row(name: str, schema: dict[str, Any], about: str, *, is_required: bool) -> str:
    mark = " (required)" if is_required else ""
    return (
        f"<tr><td><code>{escape(name)}</code>{mark}</td><td>{escape(_type_name(schema))}</td>"
        f"<td>{escape(about)}</td></tr>"
    )


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def _type_name(schema: dict[str, Any]) -> str:
    """``text or list of text``: a schema's type in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        names = dict.fromkeys(_type_name(option) for option in options)
        return " or ".join(name for name in names if name != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(map(repr, schema.get("enum", [schema.get("const")])))
    kind = schema.get("type", "any")
    return f"array of {_type_name(schema.get('items', {}))}" if kind == "array" else str(kind)
