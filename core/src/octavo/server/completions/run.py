"""A completion under way: its requests in the engine, and how far they have got."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from octavo.server.completions.choice import ChoiceWriter, ShownPrompt, shown_prompt
from octavo.server.errors import ApiError
from octavo.server.generation import EngineRequest, Generation
from octavo.server.protocol.completions import usage_object
from octavo.server.token_names import TokenNames

if TYPE_CHECKING:
    from octavo.outputs import RequestOutput
    from octavo.server.completions.prompts import CompletionPrompt
    from octavo.server.completions.task import CompletionTask
    from octavo.server.served_model import ServedModel
    from octavo.tokenizer import Tokenizer

__all__ = ["CompletionRun"]


class CompletionRun:
    """Iterates over (index of the prompt, output). ``close`` must be called at the end."""

    def __init__(
        self,
        task: CompletionTask,
        prompts: Sequence[ShownPrompt],
        tokenizer: Tokenizer | None,
        generation: Generation,
    ) -> None:
        self.task = task
        self.prompts = prompts
        self._tokenizer = tokenizer
        self._names = TokenNames(tokenizer, as_ids=task.names_tokens_by_id)
        self._generation = generation
        self._num_completion_tokens = 0
        self._num_cached_tokens = [0] * len(prompts)

    @classmethod
    async def open(
        cls,
        model: ServedModel,
        task: CompletionTask,
        prompts: Sequence[CompletionPrompt],
        completion_id: str,
        max_answers: int,
    ) -> CompletionRun:
        """Queue a request for each prompt; raises ApiError, and then none of them runs."""
        tokenizer = model.engine.tokenizer
        params = task.params if tokenizer is not None else replace(task.params, detokenize=False)
        _check_num_answers(len(prompts) * task.params.n, max_answers)
        requests = [
            EngineRequest(prompt.token_ids, params, task.priority, task.cache_salt)
            for prompt in prompts
        ]
        # Clients choose ids, and two may choose the same.
        request_id = f"{completion_id}-{uuid.uuid4().hex[:8]}"
        try:
            generation = await Generation.open(model.engine, request_id, requests)
        except ApiError as error:
            if error.code == "context_length_exceeded":
                error.param = "prompt"
            elif error.param == "structured_outputs":
                error.param = task.form_parameter
            raise
        shown = [
            shown_prompt(prompt, stream.prompt_token_ids, tokenizer, task)
            for prompt, stream in zip(prompts, generation.streams, strict=True)
        ]
        return cls(task, shown, tokenizer, generation)

    async def __aiter__(self) -> AsyncIterator[tuple[int, RequestOutput]]:
        async for index, output in self._generation:
            self._num_cached_tokens[index] = output.num_cached_tokens
            if not self.task.is_scoring:
                for answer in output.outputs:
                    self._num_completion_tokens += len(answer.token_ids)
            yield index, output

    def close(self) -> None:
        """End what still runs."""
        self._generation.close()

    def writer(self, prompt_index: int) -> ChoiceWriter:
        """For one answer to a prompt."""
        return ChoiceWriter(self.task, self.prompts[prompt_index], self._names, self._tokenizer)

    def usage(self) -> dict[str, Any]:
        """Tokens so far, of all prompts and of all answers made."""
        return usage_object(
            sum(len(prompt.token_ids) for prompt in self.prompts),
            self._num_completion_tokens,
            sum(self._num_cached_tokens),
        )


def _check_num_answers(num_answers: int, max_answers: int) -> None:
    if num_answers > max_answers:
        raise ApiError(
            f"The prompts ask for {num_answers} answers together; this server gives at most "
            f"{max_answers} to a request (--max-choices). Send fewer prompts, or a smaller n.",
            param="n",
        )
