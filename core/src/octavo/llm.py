"""``LLM``: the offline front end, in vLLM's names."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from octavo.config import EngineConfig
from octavo.errors import RequestFailedError, UsageError
from octavo.open_device import open_device
from octavo.progress import request_progress
from octavo.prompts import Prompt, is_token_ids
from octavo.sampling_params import RequestOutputKind, SamplingParams

if TYPE_CHECKING:
    from octavo.engine_loader import LoadedEngine
    from octavo.outputs import RequestOutput
    from octavo.tokenizer import Tokenizer

__all__ = ["LLM", "Message"]

Message = Mapping[str, Any]
"""A chat message: role and content, as the OpenAI API has them."""


class LLM:
    """A model ready to answer. ``LLM("model.gguf", device="auto").generate("Once upon")``."""

    def __init__(self, model: str, device: str = "auto", **options: Any) -> None:
        """Load ``model`` (a .gguf file, a folder, a hub name); options are EngineConfig's."""
        config = EngineConfig.from_options(model, {"device": device, **options})
        opened = open_device(config)
        from octavo.engine_loader import load_engine  # heavy: only once there is a device

        self._loaded: LoadedEngine = load_engine(config, opened)
        self._engine = self._loaded.engine
        self._ids = itertools.count()
        self._inbox: dict[str, list[RequestOutput]] = {}

    @property
    def config(self) -> EngineConfig:
        """The options in force."""
        return self._loaded.config

    @property
    def loaded(self) -> LoadedEngine:
        """What was loaded: backend, model, cache plan, and the engine itself."""
        return self._loaded

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._loaded.require_tokenizer()

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's own generation config asks for."""
        return self._loaded.default_sampling_params

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        priority: Sequence[int] | None = None,
        cache_salt: str | None = None,
    ) -> list[RequestOutput]:
        """Answer every prompt, batched; outputs in the order of the prompts.

        One SamplingParams serves all prompts; a sequence gives each its own. Raises
        RequestFailedError once all have ended if some of them ended with an error; it holds the
        outputs of all.
        """
        prompt_list = _as_list(prompts)
        params_list = self._params_for(prompt_list, sampling_params)
        if priority is not None and len(priority) != len(prompt_list):
            raise UsageError(
                f"priority has {len(priority)} entries for {len(prompt_list)} prompts; expected "
                "one each."
            )
        request_ids: list[str] = []
        finished: dict[str, RequestOutput] = {}
        try:
            for index, (prompt, params) in enumerate(zip(prompt_list, params_list, strict=True)):
                request_ids.append(
                    self._add(
                        prompt,
                        replace(params, output_kind=RequestOutputKind.FINAL_ONLY),
                        priority=priority[index] if priority is not None else 0,
                        cache_salt=cache_salt,
                    )
                )
            with request_progress(len(request_ids), show=use_tqdm) as advance:
                for request_id in request_ids:
                    output = self._next_output(request_id)
                    finished[request_id] = output
                    advance(output)
                    del self._inbox[request_id]
        finally:
            # Nothing is left unless an exception or Ctrl-C cut the loop short.
            self._drop(set(request_ids) - set(finished))
        return _without_errors([finished[request_id] for request_id in request_ids])

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation or several, rendered with the model's chat template."""
        conversations: Sequence[Any] = messages if _is_batch(messages) else [messages]
        prompts: list[Prompt] = [
            self.render_chat(
                conversation,
                chat_template=chat_template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools=tools,
                **(chat_template_kwargs or {}),
            )
            for conversation in conversations
        ]
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm)

    def stream(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        *,
        cache_salt: str | None = None,
    ) -> Iterator[RequestOutput]:
        """Answer one prompt piece by piece: each output holds what is new (DELTA by default).

        Closing the iterator ends the request and frees its blocks.
        """
        params = sampling_params or self.get_default_sampling_params()
        if params.output_kind is not RequestOutputKind.DELTA:
            params = replace(params, output_kind=RequestOutputKind.DELTA)
        return self._stream(self._add(prompt, params, cache_salt=cache_salt))

    def stream_chat(
        self,
        messages: Sequence[Message],
        sampling_params: SamplingParams | None = None,
        **template_options: Any,
    ) -> Iterator[RequestOutput]:
        """``stream`` for a conversation."""
        return self.stream(self.render_chat(messages, **template_options), sampling_params)

    def _stream(self, request_id: str) -> Iterator[RequestOutput]:
        try:
            while True:
                [output] = _without_errors([self._next_output(request_id)])
                yield output
                if output.finished:
                    return
        finally:
            self._drop([request_id])

    def _add(self, prompt: Prompt, params: SamplingParams, **options: Any) -> str:
        request_id = str(next(self._ids))
        self._engine.add_request(request_id, prompt, params, **options)
        self._inbox[request_id] = []
        return request_id

    def _next_output(self, request_id: str) -> RequestOutput:
        """Step until this request has news; others' news wait in their own inboxes."""
        inbox = self._inbox[request_id]
        while not inbox:
            for output in self._engine.step():
                # One that was given up within an interrupted step has no inbox any more.
                self._inbox.get(output.request_id, []).append(output)
        return inbox.pop(0)

    def _drop(self, request_ids: Iterable[str]) -> None:
        """End what still runs of these requests and forget their outputs."""
        request_ids = list(request_ids)
        self._engine.abort(request_ids)
        for request_id in request_ids:
            self._inbox.pop(request_id, None)

    def render_chat(self, messages: Sequence[Message], **template_options: Any) -> Prompt:
        """The prompt of a conversation: text by the chat template, and its token ids."""
        from octavo.tokenizer import render_chat

        tokenizer = self.get_tokenizer()
        text = render_chat(tokenizer, messages, **template_options)
        # The template writes the special tokens itself.
        return {
            "prompt": text,
            "prompt_token_ids": tokenizer.encode(text, add_special_tokens=False),
        }

    def embed(self, *_args: object, **_options: object) -> list[RequestOutput]:
        """Reserved for embedding models."""
        raise UsageError("Embedding models are not supported yet: LLM.embed is reserved for them.")

    def reset_prefix_cache(self) -> None:
        """Forget cached prefixes that no running request uses."""
        self._engine.scheduler.reset_prefix_cache()

    def close(self) -> None:
        """Release the device. The LLM must not be used afterwards."""
        self._loaded.close()

    def _params_for(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None,
    ) -> Sequence[SamplingParams]:
        if params is None:
            params = self.get_default_sampling_params()
        if isinstance(params, SamplingParams):
            return [params] * len(prompts)
        if len(params) != len(prompts):
            raise UsageError(
                f"sampling_params has {len(params)} entries for {len(prompts)} prompts; pass one "
                "for all, or one each."
            )
        return params


def _as_list(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    if isinstance(prompts, str | Mapping) or is_token_ids(prompts):
        return [cast("Prompt", prompts)]
    return cast("Sequence[Prompt]", prompts)


def _is_batch(messages: Sequence[Any]) -> bool:
    return len(messages) > 0 and not isinstance(messages[0], Mapping)


def _without_errors(outputs: list[RequestOutput]) -> list[RequestOutput]:
    errors = [output.error for output in outputs if output.error is not None]
    if len(outputs) > 1 and errors:
        raise RequestFailedError(
            f"{len(errors)} of {len(outputs)} requests ended with an error; the others' answers "
            f"are in this exception's outputs. The first error: {errors[0]}",
            outputs,
        )
    if errors:
        raise RequestFailedError(errors[0], outputs)
    return outputs
