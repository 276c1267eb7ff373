"""What changes a server at work: forgetting cached prefixes, sleeping, waking up."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from octavo.errors import CapacityError
from octavo.server.errors import ApiError
from octavo.server.served_model import ServedModel
from octavo.server.state import server_of

__all__ = ["ModelQuery", "chosen_models", "router"]


class ModelQuery(BaseModel):
    """Which model is meant."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="One of the server's; all of them if left out.")


class SleepQuery(ModelQuery):
    """How deep the sleep is."""

    level: Literal["1", "2"] = Field(
        "1", description="1 gives the KV cache back, 2 the weights as well."
    )


def require_management(request: Request) -> None:
    """Raise ApiError (403) where the server is not to be managed over HTTP."""
    config = server_of(request).config
    if config.has_management:
        return
    why = (
        "Managing this server over HTTP is switched off (--no-management)."
        if config.management is False
        else f"This server listens on {config.host} and asks for no API key, so that everybody "
        "could manage it: set an API key (--api-key), or allow it (--management)."
    )
    raise ApiError(why, status=HTTPStatus.FORBIDDEN, code="management_disabled")


router = APIRouter()
_managed = [Depends(require_management)]


def chosen_models(request: Request, query: ModelQuery) -> Sequence[ServedModel]:
    """The model that the query names, or all; raises ApiError (404)."""
    models = server_of(request).models
    return models if query.model is None else [models.find(query.model)]


@router.post("/reset_prefix_cache", dependencies=_managed)
async def reset_prefix_cache(
    request: Request, query: Annotated[ModelQuery, Query()]
) -> dict[str, dict[str, int]]:
    """Forget cached prefixes that no running request uses; ``num_blocks`` held one."""
    models = chosen_models(request, query)
    return {"num_blocks": {model.name: await model.engine.reset_prefix_cache() for model in models}}


@router.post("/sleep", dependencies=_managed)
async def sleep(request: Request, query: Annotated[SleepQuery, Query()]) -> dict[str, Any]:
    """End all requests and give memory back until /wake_up."""
    models = chosen_models(request, query)
    for model in models:
        await model.engine.sleep(int(query.level))
    return _sleepers(models)


@router.post("/wake_up", dependencies=_managed)
async def wake_up(request: Request, query: Annotated[ModelQuery, Query()]) -> dict[str, Any]:
    """Take the memory again and load what was given up."""
    models = chosen_models(request, query)
    for model in models:
        try:
            await model.engine.wake_up()
        except CapacityError as error:  # others have taken the memory: not the request's fault
            raise ApiError(
                str(error), status=HTTPStatus.SERVICE_UNAVAILABLE, code="no_memory"
            ) from error
    return _sleepers(models)


@router.get("/is_sleeping")
async def is_sleeping(request: Request, query: Annotated[ModelQuery, Query()]) -> dict[str, Any]:
    """Whether the models sleep: ``is_sleeping`` if all of them do."""
    return _sleepers(chosen_models(request, query))


def _sleepers(models: Sequence[ServedModel]) -> dict[str, Any]:
    by_name = {model.name: model.engine.is_sleeping for model in models}
    return {"is_sleeping": bool(by_name) and all(by_name.values()), "models": by_name}
