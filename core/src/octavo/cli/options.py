"""Command-line options shared by the commands that run a model, as data.

``with_options`` adds them to a command's signature, so that every command offers the same flags
with the same words, and hands over only what the user set.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

__all__ = ["ENGINE_OPTIONS", "SAMPLING_OPTIONS", "STRUCTURED_OPTIONS", "Option", "with_options"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Option:
    """One flag: the parameter it sets, its type, its help."""

    parameter: str
    type: Any
    help: str
    panel: str
    flags: tuple[str, ...] = ()  # in place of --parameter-name


def _engine(parameter: str, kind: Any, text: str, *flags: str) -> Option:
    return Option(parameter, kind, text, "Engine", flags)


def _sampling(parameter: str, kind: Any, text: str, *flags: str) -> Option:
    return Option(parameter, kind, text, "Sampling", flags)


def _structured(parameter: str, kind: Any, text: str, *flags: str) -> Option:
    return Option(parameter, kind, text, "Structured output", flags)


ENGINE_OPTIONS = (
    _engine("device", str, "auto, or KIND[:INDEX]: cpu, cuda, rocm, xpu, tpu, …", "--device", "-d"),
    _engine("backend", str, "Pin the backend that runs it: numpy, torch, cuda, …"),
    _engine("attention_backend", str, "Pin an attention implementation that a plugin registered."),
    _engine("plugins_file", str, "Read this plugins.toml instead of the one found first."),
    _engine("threads", int, "Processor threads of a backend that has the option. [its choice]"),
    _engine(
        "tensor_parallel_size",
        int,
        "Devices that share the model, from --device on. [1]",
        "--tensor-parallel-size",
        "-tp",
    ),
    _engine("dtype", str, "Compute dtype: float32, bfloat16, float16; auto asks the backend."),
    _engine("quantization", str, "Quantise the weights at load: int8 or int4."),
    _engine("kv_cache_dtype", str, "Dtype of cached keys and values; auto: the compute dtype."),
    _engine("block_size", int, "Tokens per cache block."),
    _engine("max_model_len", int, "Longest context in tokens, prompt and answer together."),
    _engine(
        "gpu_memory_utilization",
        float,
        "Share of a device's memory to use; of the host's, half that share of what is free. [0.9]",
    ),
    _engine("kv_cache_memory_bytes", int, "Bytes for the KV cache, instead of a share."),
    _engine("swap_space", float, "GiB of host memory for preempted requests' blocks. [1.0]"),
    _engine("max_num_seqs", int, "Most requests running at once. [256]"),
    _engine("max_num_batched_tokens", int, "Most tokens in one step. [2048]"),
    _engine("max_num_waiting", int, "Most requests waiting; more are refused. [serve: 1024]"),
    _engine("enable_prefix_caching", bool, "Share the cache of common prefixes. [on]"),
    _engine("enable_chunked_prefill", bool, "Split long prompts over several steps. [on]"),
    _engine("scheduling_policy", str, "fcfs or priority."),
    _engine("preemption_mode", str, "auto, recompute or swap."),
    _engine(
        "step_timeout_s", float, "Seconds a step may take before the engine gives up. [no limit]"
    ),
    _engine("load_format", str, "auto, safetensors, gguf, or dummy (random weights)."),
    _engine("model_impl", str, "Whose model code: auto, octavo, or transformers (torch only)."),
    _engine("tokenizer", str, "A folder with another tokenizer."),
    _engine("revision", str, "Branch, tag or commit of a hub model."),
    _engine("download_dir", str, "Where hub models are kept."),
    _engine("generation_config", str, "auto: the model's own sampling defaults; octavo: ours."),
    _engine("quiet", bool, "No progress and no lines about choices."),
)

SAMPLING_OPTIONS = (
    _sampling("max_tokens", int, "Longest answer in tokens.", "--max-tokens", "-m"),
    _sampling("temperature", float, "0 is greedy; higher is more random.", "--temperature", "-t"),
    _sampling("top_p", float, "Draw from the likeliest tokens that make up this probability."),
    _sampling("top_k", int, "Draw from this many likeliest tokens; 0 is off."),
    _sampling("min_p", float, "Leave out tokens less likely than this times the likeliest."),
    _sampling("seed", int, "The same seed gives the same answer.", "--seed", "-s"),
    _sampling("n", int, "How many answers to each prompt."),
    _sampling("stop", list[str], "Stop before this text; repeatable."),
    _sampling("presence_penalty", float, "Penalty on tokens that have occurred."),
    _sampling("frequency_penalty", float, "Penalty on tokens by how often they occurred."),
    _sampling("repetition_penalty", float, "Divides the logits of tokens seen so far."),
    _sampling("min_tokens", int, "Shortest answer in tokens."),
    _sampling("ignore_eos", bool, "Go on past the end-of-text token."),
)

STRUCTURED_OPTIONS = (
    _structured("json_schema", str, "JSON that matches this schema: a file, or the schema itself."),
    _structured("regex", str, "Text that matches this regular expression as a whole."),
    _structured("choice", list[str], "One of these texts; repeat the flag for each."),
    _structured("grammar", str, "Text that this file's grammar (Lark or GBNF) yields."),
)


def with_options(
    *groups: Sequence[Option],
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Add options to a command; those the user set arrive as one dict per group, in order.

    The command's own parameters come first; its last ``len(groups)`` parameters are the dicts.
    """

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        kept, dicts = own[: -len(groups)], own[-len(groups) :]
        added = [_parameter(option) for group in groups for option in group]

        @functools.wraps(command)
        def wrapper(**values: Any) -> Result:
            for parameter, group in zip(dicts, groups, strict=True):
                given = {option.parameter: values.pop(option.parameter) for option in group}
                values[parameter.name] = {
                    name: value for name, value in given.items() if value not in (None, [])
                }
            return command(**values)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*kept, *added)]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        del wrapper.__wrapped__
        return wrapper

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    flags = option.flags or ("--" + option.parameter.replace("_", "-"),)
    if option.type is bool and not option.flags:
        name = option.parameter.replace("_", "-")
        flags = (f"--{name}/--no-{name}",)
    text = option.help.replace("[", r"\[")  # a default, and no markup
    info = typer.Option(*flags, help=text, rich_help_panel=option.panel, show_default=False)
    return inspect.Parameter(
        option.parameter,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[option.type | None, info],
    )
