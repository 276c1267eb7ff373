"""One answer as a choice of a completion: its text, log-probabilities and token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.server.completions.logprobs import Entry, legacy_logprobs
from octavo.server.completions.text_offsets import TextOffsets
from octavo.tokenizer import IncrementalDetokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octavo.outputs import CompletionOutput
    from octavo.server.completions.prompts import CompletionPrompt
    from octavo.server.completions.task import CompletionTask
    from octavo.server.token_names import TokenNames
    from octavo.tokenizer import Tokenizer

__all__ = ["ChoiceWriter", "ShownPrompt", "shown_prompt"]


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt as it is given back."""

    token_ids: list[int]
    """As the engine took them."""
    text: str
    """Empty, unless it is to be echoed."""


def shown_prompt(
    prompt: CompletionPrompt,
    token_ids: list[int],
    tokenizer: Tokenizer | None,
    task: CompletionTask,
) -> ShownPrompt:
    """The prompt of an answer; ``token_ids`` are what the engine took of it.

    Text comes back as it was sent. Token ids come back as their text, special tokens included; the
    half character that they may end with is left to the answer, which completes it.
    """
    if not task.echo or tokenizer is None:
        return ShownPrompt(token_ids, "")
    if prompt.text is not None and len(prompt.token_ids) == len(token_ids):
        return ShownPrompt(token_ids, prompt.text)
    detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=False)
    text = detokenizer.push(token_ids)
    return ShownPrompt(token_ids, text + detokenizer.flush() if task.is_scoring else text)


class ChoiceWriter:
    """Writes one answer, whole or part by part; what comes first has the prompt, if it is echoed.

    The parts of an answer, joined, are what it is in whole.
    """

    def __init__(
        self,
        task: CompletionTask,
        prompt: ShownPrompt,
        names: TokenNames,
        tokenizer: Tokenizer | None,
    ) -> None:
        self._task = task
        self._prompt = prompt
        self._names = names
        self._has_begun = False
        self._offsets = (
            None
            if task.num_logprobs is None
            else TextOffsets(tokenizer, skip_special_tokens=task.params.skip_special_tokens)
        )

    @property
    def is_plain(self) -> bool:
        """Whether further parts are nothing but text until the answer ends."""
        return self._has_begun and self._offsets is None and not self._task.shows_token_ids

    def write(
        self, output: CompletionOutput, prompt_logprobs: Sequence[Entry] | None
    ) -> dict[str, Any]:
        """The next part as a choice, its index left out."""
        task, begins = self._task, not self._has_begun
        self._has_begun = True
        choice: dict[str, Any] = {
            "text": (self._prompt.text if begins else "")
            + ("" if task.is_scoring else output.text),
            "logprobs": self._logprobs(output, prompt_logprobs or [], begins=begins),
            "finish_reason": output.finish_reason,
            "stop_reason": output.stop_reason,
        }
        if task.is_scoring and output.finish_reason != "abort":
            choice |= {"finish_reason": "length", "stop_reason": None}
        if task.shows_token_ids:
            choice["token_ids"] = [] if task.is_scoring else output.token_ids
            if begins:
                choice["prompt_token_ids"] = self._prompt.token_ids
        return choice

    def _logprobs(
        self, output: CompletionOutput, prompt_logprobs: Sequence[Entry], *, begins: bool
    ) -> dict[str, Any] | None:
        if self._offsets is None or self._task.num_logprobs is None:
            return None
        token_ids: list[int] = []
        entries: list[Entry] = []
        offsets: list[int] = []
        if begins and self._task.echo:
            # Of a request that was ended early, the prompt may have been read in part.
            num_read = len(prompt_logprobs)
            token_ids += self._prompt.token_ids[:num_read]
            entries += prompt_logprobs
            offsets += self._offsets.prompt(self._prompt.token_ids, self._prompt.text)[:num_read]
        elif begins:
            self._offsets.pass_over(self._prompt.token_ids)
        if not self._task.is_scoring:
            token_ids += output.token_ids
            entries += output.logprobs or []
            offsets += self._offsets.answer(output.token_ids)
        return legacy_logprobs(token_ids, entries, offsets, self._names, self._task.num_logprobs)
