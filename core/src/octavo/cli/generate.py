"""``octavo generate``: answer prompts from the command line, a file or standard input."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.options import (
    ENGINE_OPTIONS,
    SAMPLING_OPTIONS,
    STRUCTURED_OPTIONS,
    with_options,
)
from octavo.cli.sampling import check_sampling_flags, sampling_params
from octavo.cli.structured import structured_flags
from octavo.errors import RequestFailedError, UsageError

if TYPE_CHECKING:
    from octavo.llm import LLM
    from octavo.outputs import RequestOutput
    from octavo.sampling_params import SamplingParams

__all__ = ["generate", "read_prompt_file"]


@with_options(ENGINE_OPTIONS, SAMPLING_OPTIONS, STRUCTURED_OPTIONS)
def generate(
    model: Annotated[str, typer.Argument(help="A .gguf file, a folder, or a hub name.")],
    prompts: Annotated[list[str] | None, typer.Argument(help="One or more prompts.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read prompts from a file, one a line.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line for each prompt.")
    ] = False,
    engine: dict[str, Any] | None = None,
    sampling: dict[str, Any] | None = None,
    structured: dict[str, Any] | None = None,
) -> None:
    """Continue one or more prompts; several run as one batch.

    A single prompt is streamed as it is written. With no prompt, standard input is one prompt.

    [bold]Examples[/bold]

      octavo generate model.gguf "Once upon a time" --max-tokens 50

      octavo generate model.gguf --file prompts.txt --json > answers.jsonl

      echo "The capital of France is" | octavo generate model.gguf --temperature 0

      octavo generate model.gguf "Is water wet?" --choice yes --choice no
    """
    texts = _read_prompts(prompts or [], file)
    sampling = {**(sampling or {}), **structured_flags(structured or {})}
    check_sampling_flags(sampling)
    from octavo.llm import LLM  # heavy: only when there is something to run

    llm = LLM(model, **(engine or {}))
    try:
        params = sampling_params(llm, sampling)
        if len(texts) == 1 and not as_json and params.n == 1:
            _stream(llm, texts[0], params)
        else:
            _print_all(_answer_all(llm, texts, params), as_json=as_json)
    finally:
        llm.close()


def _read_prompts(prompts: list[str], file: Path | None) -> list[str]:
    if prompts and file is not None:
        raise UsageError("Give prompts as arguments or with --file, not both.")
    if file is not None:
        return read_prompt_file(file)
    if not prompts:
        if sys.stdin.isatty():
            raise UsageError("No prompt: give one as an argument, with --file, or on stdin.")
        text = sys.stdin.read().rstrip("\n")
        if not text:
            raise UsageError("No prompt: standard input was empty.")
        prompts = [text]
    return prompts


def read_prompt_file(file: Path) -> list[str]:
    """The non-empty lines of a text file. Raises UsageError for what cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"--file {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--file {file} is not UTF-8 text (byte {error.start}).") from error
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise UsageError(f"--file {file} holds no prompt: expected one a line.")
    return prompts


def _stream(llm: LLM, prompt: str, params: Any) -> None:
    for output in llm.stream(prompt, params):
        sys.stdout.write(output.outputs[0].text)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _answer_all(llm: LLM, texts: list[str], params: SamplingParams) -> Iterator[RequestOutput]:
    """The answers; the error, if there is one, comes after those that there are."""
    try:
        yield from llm.generate(texts, params)
    except RequestFailedError as error:
        yield from error.outputs
        raise


def _print_all(outputs: Iterable[RequestOutput], *, as_json: bool) -> None:
    for number, output in enumerate(outputs, 1):
        if as_json:
            print(json.dumps(_as_record(output), ensure_ascii=False))
            continue
        for answer in output.outputs:
            label = f"{number}" if len(output.outputs) == 1 else f"{number}.{answer.index + 1}"
            print(f"[{label}] {output.prompt}{answer.text}")


def _as_record(output: RequestOutput) -> dict[str, Any]:
    return {
        "prompt": output.prompt,
        "outputs": [
            {
                "text": answer.text,
                "token_ids": answer.token_ids,
                "finish_reason": answer.finish_reason,
                "stop_reason": answer.stop_reason,
            }
            for answer in output.outputs
        ],
        "usage": {
            "prompt_tokens": len(output.prompt_token_ids),
            "completion_tokens": sum(len(answer.token_ids) for answer in output.outputs),
            "cached_tokens": output.num_cached_tokens,
        },
        "error": output.error,
        "metrics": None if output.metrics is None else dataclasses.asdict(output.metrics),
    }
