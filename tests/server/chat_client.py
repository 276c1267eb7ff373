"""Chat completions through OpenAI's client, whole and joined from a stream."""

from __future__ import annotations

import json

import httpx

from octavo.server.config import ServerConfig
from octavo.server.state import Server

HELLO = [{"role": "user", "content": "Hello"}]


def post(server, **body):
    """The response to a raw body, which has a message if it says nothing else."""
    body = {"messages": HELLO, "max_tokens": 4, **body}
    return httpx.post(f"{server.base_url}/v1/chat/completions", json=body, timeout=30)


def ask(client, **options):
    options = {"model": "tiny", "messages": HELLO, "seed": 7, **options}
    return client.chat.completions.create(**options)


def joined(chunks):
    """Choices of a stream, as (content, reasoning, calls, logprobs, finish_reason) by index."""
    choices = {}
    for chunk in chunks:
        for part in chunk.choices:
            choice = choices.setdefault(
                part.index, {"content": "", "reasoning": "", "calls": {}, "tokens": [], "end": None}
            )
            assert choice["end"] is None, "nothing follows the end"
            delta = part.delta
            choice["content"] += delta.content or ""
            choice["reasoning"] += getattr(delta, "reasoning_content", None) or ""
            for call in delta.tool_calls or ():
                known = choice["calls"].setdefault(call.index, {"name": None, "arguments": ""})
                if call.id is not None:
                    assert known["name"] is None
                    known["name"] = call.function.name
                assert known["name"] is not None, "the name comes first"
                known["arguments"] += call.function.arguments or ""
            if part.logprobs is not None:
                choice["tokens"] += part.logprobs.content
            choice["end"] = part.finish_reason
    return choices


def calls_of(choice):
    """(name, arguments) of a whole answer's calls."""
    return [
        (call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls or ()
    ]


def offer(server, models):
    """Let a running server offer these models."""
    server.app.state.octavo = Server(ServerConfig(), models)
