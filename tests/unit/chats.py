"""Conversations that chat templates are tried with."""

from __future__ import annotations

from typing import Any

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather <now> & later, for a città",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's name"},
                    "days": {"type": "integer", "enum": [1, 2]},
                },
                "required": ["city"],
            },
        },
    }
]

CHATS: dict[str, list[dict[str, Any]]] = {
    "one question": [{"role": "user", "content": "Is 1 < 2 & 'x'?"}],
    "system and turns": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What? "},
        {"role": "assistant", "content": "That.\n"},
        {"role": "user", "content": " é 漢 🙂"},
    ],
    "tool call": [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "abcdefghi",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": {"city": "Rome", "days": 2}},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "sunny"},
        {"role": "user", "content": "thanks"},
    ],
    "reasoning": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "reasoning_content": "hmm"},
        {"role": "user", "content": "r"},
    ],
    "no user": [{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}],
}
