"""GET /v1/models: what is served here, in OpenAI's shape, or Anthropic's for its clients."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from octavo.server.errors import ApiError
from octavo.server.served_model import ServedModel
from octavo.server.state import server_of

__all__ = ["router"]

router = APIRouter(tags=["models"])

AnthropicVersion = Annotated[
    str | None, Header(description="Sent by Anthropic's clients: they get their own shape.")
]


class PageQuery(BaseModel):
    """Which part of Anthropic's list; OpenAI's has no parts."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=1000)
    after_id: str | None = None
    before_id: str | None = None


@router.get("/v1/models")
async def list_models(
    request: Request,
    page: Annotated[PageQuery, Query()],
    anthropic_version: AnthropicVersion = None,
) -> dict[str, Any]:
    """Every name of every model, in the order they were given."""
    named = [(name, model) for model in server_of(request).models for name in model.names]
    if anthropic_version is not None:
        return _anthropic_page([_anthropic_card(name, model) for name, model in named], page)
    if page.model_fields_set:
        raise ApiError(
            f"Unrecognized request argument supplied: {min(page.model_fields_set)}. The list comes "
            "in one part (Anthropic's, with the header anthropic-version, in several).",
            param=min(page.model_fields_set),
            code="unknown_parameter",
        )
    return {"object": "list", "data": [_card(name, model) for name, model in named]}


@router.get("/v1/models/{name:path}")
async def retrieve_model(
    request: Request, name: str, anthropic_version: AnthropicVersion = None
) -> dict[str, Any]:
    """One model, by any of its names."""
    model = server_of(request).models.find(name)
    return _card(name, model) if anthropic_version is None else _anthropic_card(name, model)


def _card(name: str, model: ServedModel) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": model.created_s,
        "owned_by": "octavo",
        "root": model.engine.info.model,
        "parent": None,
        "max_model_len": model.engine.info.max_model_len,
    }


def _anthropic_card(name: str, model: ServedModel) -> dict[str, Any]:
    created = datetime.fromtimestamp(model.created_s, UTC)
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": model.engine.info.max_model_len,
        "max_tokens": model.engine.info.max_model_len,
    }


def _anthropic_page(cards: Sequence[dict[str, Any]], page: PageQuery) -> dict[str, Any]:
    """The first ``limit`` behind ``after_id``, or the last ones before ``before_id``."""
    ids = [card["id"] for card in cards]
    begin = 0 if page.after_id is None else _place(ids, "after_id", page.after_id) + 1
    end = len(ids) if page.before_id is None else _place(ids, "before_id", page.before_id)
    if page.before_id is None:
        shown = cards[begin : min(end, begin + page.limit)]
    else:
        shown = cards[max(begin, end - page.limit) : end]
    return {
        "data": list(shown),
        "has_more": len(shown) < max(0, end - begin),
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }


def _place(ids: Sequence[str], param: str, model_id: str) -> int:
    if model_id not in ids:
        raise ApiError(f"{param}={model_id!r:.100} is no model of this server.", param=param)
    return ids.index(model_id)
