"""The page at ``/``: static files out of the package, with headers that keep it to itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

__all__ = ["PageFile", "page_files", "router"]

_INDEX = "index.html"
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What a model writes is shown on this page. Should it ever become markup, nothing may run or load.
_DIRECTIVES = (
    "default-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "object-src 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
_HEADERS = {
    # The names of files stay the same from version to version: ask each time, by ETag.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "; ".join(_DIRECTIVES),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class PageFile:
    """One file of the page, ready to be sent."""

    content: bytes
    content_type: str
    etag: str
    """Quoted, as the header has it."""


@cache
def page_files() -> Mapping[str, PageFile]:
    """All files of the page by name; read once, and no other path is ever opened."""
    folder = resources.files("octavo.server") / "page"
    return {
        entry.name: _page_file(entry.name, entry.read_bytes())
        for entry in folder.iterdir()
        if _suffix(entry.name) in _CONTENT_TYPES
    }


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page itself."""
    return _response(request, page_files()[_INDEX])


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def asset(request: Request, name: str) -> Response:
    """A script, style or picture of the page."""
    file = page_files().get(name)
    if file is None or name == _INDEX:
        raise HTTPException(404)
    return _response(request, file)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]


def _page_file(name: str, content: bytes) -> PageFile:
    digest = hashlib.sha256(content).hexdigest()[:32]
    return PageFile(content, _CONTENT_TYPES[_suffix(name)], f'"{digest}"')


def _response(request: Request, file: PageFile) -> Response:
    headers = {**_HEADERS, "ETag": file.etag}
    if _is_known(request.headers.get("if-none-match", ""), file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.content_type)


def _is_known(if_none_match: str, etag: str) -> bool:
    """Whether the browser's copy is still good; proxies may have made its tag a weak one."""
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in known or "*" in known
