"""The formats that come with Octavo, and how each is told from a model's template and tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from octavo.parsing.clues import ModelClues
from octavo.parsing.deepseek import DEEPSEEK_V3, DEEPSEEK_V31
from octavo.parsing.hermes import HERMES
from octavo.parsing.json_format import JSON
from octavo.parsing.llama_json import LLAMA3_JSON
from octavo.parsing.mistral import MISTRAL, MISTRAL_ARGS
from octavo.parsing.pythonic import PYTHONIC
from octavo.parsing.qwen_coder import QWEN3_CODER
from octavo.parsing.reasoning import DEEPSEEK_R1, MISTRAL_THINK, THINK, ReasoningFormat
from octavo.parsing.tool_format import ToolCallFormat
from octavo.spec import API_VERSION, ParserSpec

__all__ = ["BUILTIN_PARSERS"]

_DEEPSEEK_CALL = "<\uff5ctool\u2581call\u2581begin\uff5c>"
_DEEPSEEK_ANSWER = "<\uff5cAssistant\uff5c>"
_PYTHONIC_EXAMPLE = re.compile(r"\[\w+\(\w+=")
_TOOLS = re.compile(r"\btools\b")


def _spec(
    loaded: ToolCallFormat | ReasoningFormat, summary: str, detect: Callable[[ModelClues], bool]
) -> ParserSpec:
    kind: Literal["tool_calls", "reasoning"] = (
        "tool_calls" if isinstance(loaded, ToolCallFormat) else "reasoning"
    )
    return ParserSpec(loaded.name, kind, summary, lambda: loaded, detect, API_VERSION)


def _is_deepseek(clues: ModelClues) -> bool:
    return clues.mentions(_DEEPSEEK_CALL)


def _is_llama3_json(clues: ModelClues) -> bool:
    return clues.mentions("<|python_tag|>") or (
        '{"name": function name, "parameters": ' in clues.template
    )


# The first of a kind whose clues are there is taken, so the particular stand before the general.
BUILTIN_PARSERS = (
    _spec(
        DEEPSEEK_V31,
        "DeepSeek-V3.1: special tokens around a name and JSON",
        lambda clues: _is_deepseek(clues) and "```json" not in clues.template,
    ),
    _spec(DEEPSEEK_V3, "DeepSeek-V3 and R1: special tokens around fenced JSON", _is_deepseek),
    _spec(
        MISTRAL_ARGS,
        "Mistral from tokenizer V11 on: [TOOL_CALLS]name[ARGS]{…}",
        lambda clues: clues.mentions("[TOOL_CALLS]") and clues.mentions("[ARGS]"),
    ),
    _spec(
        MISTRAL,
        "Mistral up to tokenizer V7: [TOOL_CALLS][{…}]",
        lambda clues: clues.mentions("[TOOL_CALLS]"),
    ),
    _spec(
        QWEN3_CODER,
        "Qwen3-Coder: one tag for each argument",
        lambda clues: "<function=" in clues.template and "<parameter=" in clues.template,
    ),
    _spec(
        HERMES,
        "Hermes, Qwen2.5, Qwen3, SmolLM: JSON between <tool_call> tags",
        lambda clues: clues.mentions("<tool_call>"),
    ),
    _spec(
        PYTHONIC,
        "Llama 3.2 and 4: a list of calls with keyword arguments",
        lambda clues: _PYTHONIC_EXAMPLE.search(clues.template) is not None,
    ),
    _spec(LLAMA3_JSON, "Llama 3: JSON with a name and parameters", _is_llama3_json),
    _spec(
        JSON,
        "any model that is asked for JSON",
        lambda clues: _TOOLS.search(clues.template) is not None,
    ),
    _spec(
        DEEPSEEK_R1,
        "DeepSeek-R1: <think>, opened by the prompt as a rule",
        lambda clues: clues.mentions("<think>") and clues.mentions(_DEEPSEEK_ANSWER),
    ),
    _spec(
        MISTRAL_THINK,
        "Magistral: [THINK]",
        lambda clues: clues.mentions("[THINK]"),
    ),
    _spec(
        THINK,
        "Qwen3, SmolLM3 and others: <think>",
        lambda clues: clues.mentions("<think>") or "</think>" in clues.template,
    ),
)
