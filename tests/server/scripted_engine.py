"""An engine that says what a test tells it to, token by token, and keeps what it was asked."""

from __future__ import annotations

import asyncio

from fake_clients import FakeClient

from octavo.loading.tokenizer_source import TokenizerSource
from octavo.outputs import CompletionOutput, Logprob, RequestOutput
from octavo.server.engines.client import OutputStream
from octavo.tokenizer import load_tokenizer


class ScriptedStream(OutputStream):
    def __init__(self, request_id, prompt_token_ids, outputs, pause):
        self.request_id = request_id
        self.prompt_token_ids = prompt_token_ids
        self.is_closed = False
        self._outputs = iter(outputs)
        self._pause = pause

    async def __anext__(self):
        await asyncio.sleep(0)
        if self._pause is not None:
            await self._pause.wait()
        try:
            return next(self._outputs)
        except StopIteration:
            raise StopAsyncIteration from None

    def close(self):
        self.is_closed = True


class ScriptedEngine(FakeClient):
    """Answers with ``text``; with ``finish_reason``, ``stop_reason`` and ``error`` at its end."""

    def __init__(self, folder, text="Hi", *, finish_reason="stop", stop_reason=None, error=None):
        super().__init__(max_model_len=1024)
        self.tokenizer = load_tokenizer(TokenizerSource(directory=folder))
        self.text = text
        self.finish_reason = finish_reason
        self.stop_reason = stop_reason
        self.error = error
        self.pause = None
        self.prompts = []
        self.params = []
        self.streams = []

    async def submit(self, request_id, prompt, params, *, priority=0, cache_salt=None):
        token_ids = list(prompt["prompt_token_ids"])
        self.prompts.append(token_ids)
        self.params.append(params)
        outputs = list(self._outputs(request_id, token_ids, params))
        stream = ScriptedStream(request_id, token_ids, outputs, self.pause)
        self.streams.append(stream)
        return stream

    def _outputs(self, request_id, prompt_token_ids, params):
        token_ids = self.tokenizer.encode(self.text, add_special_tokens=False)
        pieces = [self.tokenizer.decode([token_id]) for token_id in token_ids]
        assert "".join(pieces) == self.text, "the script has a character of several tokens"
        for i, (token_id, piece) in enumerate(zip(token_ids, pieces, strict=True)):
            is_last = i == len(pieces) - 1
            has_failed = is_last and self.error is not None
            reason = "error" if has_failed else self.finish_reason
            answer = CompletionOutput(
                0,
                piece,
                [token_id],
                logprobs=None if params.logprobs is None else [{token_id: Logprob(-1.0, 1, piece)}],
                finish_reason=reason if is_last else None,
                stop_reason=self.stop_reason if is_last else None,
            )
            yield RequestOutput(
                request_id,
                None,
                prompt_token_ids,
                [answer],
                finished=is_last,
                num_cached_tokens=2,
                error=self.error if has_failed else None,
            )
