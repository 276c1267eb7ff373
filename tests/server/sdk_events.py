"""Holds what a server sends against the models of the clients' libraries, strictly.

The libraries themselves build their objects without looking at the types.
"""

from __future__ import annotations

import json
import typing

import anthropic.types
import openai.types.responses


def _by_type(union):
    members = typing.get_args(typing.get_args(union)[0])
    return {
        typing.get_args(member.model_fields["type"].annotation)[0]: member for member in members
    }


OPENAI_EVENTS = _by_type(openai.types.responses.ResponseStreamEvent)
ANTHROPIC_EVENTS = _by_type(anthropic.types.RawMessageStreamEvent)


def check_openai_event(event):
    OPENAI_EVENTS[event["type"]].model_validate(event, strict=True)


def check_anthropic_event(event):
    if event["type"] != "ping":  # the library passes over it
        ANTHROPIC_EVENTS[event["type"]].model_validate(event, strict=True)


def check_response(body):
    openai.types.responses.Response.model_validate(body, strict=True)


def check_message(body):
    anthropic.types.Message.model_validate(body, strict=True)


def read_events(text):
    """The data of all events of a stream; each is named as its type says."""
    events = []
    for block in text.split("\n\n"):
        if not block:
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events
