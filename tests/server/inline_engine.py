"""An EngineClient that steps its engine on the event loop itself: small, and the same each time."""

from __future__ import annotations

import asyncio

from octavo.errors import BackendError
from octavo.server.engine_client import EngineClient, EngineInfo, OutputStream


class InlineStream(OutputStream):
    def __init__(self, engine, request_id, prompt_token_ids):
        self.request_id = request_id
        self.prompt_token_ids = prompt_token_ids
        self.outputs = asyncio.Queue()
        self._engine = engine
        self._ended = False

    async def __anext__(self):
        if self._ended:
            raise StopAsyncIteration
        output = await self.outputs.get()
        if isinstance(output, Exception):
            raise output
        self._ended = output.finished
        return output

    def close(self):
        self._ended = True
        self._engine.drop(self)


class InlineEngine(EngineClient):
    def __init__(self, loaded):
        self.loaded = loaded
        self.tokenizer = loaded.tokenizer
        self.info = _info(loaded)
        self._engine = loaded.engine
        self._streams = {}
        self._stepping = None
        self._sleeps = False

    @property
    def failure(self):
        return self._engine.failure

    @property
    def is_sleeping(self):
        return self._sleeps

    @property
    def stats(self):
        return self._engine.stats

    async def submit(self, request_id, prompt, params, *, priority=0, cache_salt=None):
        if self._sleeps:
            raise BackendError("The engine sleeps.")
        self._engine.add_request(
            request_id, prompt, params, priority=priority, cache_salt=cache_salt
        )
        served = self._engine._served[request_id]
        stream = self._streams[request_id] = InlineStream(self, request_id, served.prompt_token_ids)
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._run())
        return stream

    def drop(self, stream):
        if self._streams.get(stream.request_id) is stream:
            del self._streams[stream.request_id]
            self._engine.abort([stream.request_id])

    async def _run(self):
        while self._engine.has_unfinished_requests:
            self._deliver(self._engine.step())
            await asyncio.sleep(0)

    def _deliver(self, outputs):
        for output in outputs:
            stream = self._streams.get(output.request_id)
            if stream is None:
                continue
            if output.finished:
                del self._streams[output.request_id]
            stream.outputs.put_nowait(output)

    async def snapshot(self):
        return self._engine.snapshot()

    async def reset_prefix_cache(self):
        return self._engine.scheduler.reset_prefix_cache()

    async def sleep(self, level=1):
        self._sleeps = True
        self._deliver(self._engine.abort(list(self._streams)))

    async def wake_up(self):
        self._sleeps = False

    async def close(self):
        self._deliver(self._engine.abort(list(self._streams)))
        if self._stepping is not None:
            await self._stepping
        self.loaded.close()


def _info(loaded):
    config, model = loaded.config, loaded.engine.model
    return EngineInfo(
        model=config.model,
        architecture="llama",
        num_parameters=model.num_parameters,
        device=loaded.resolution.spec.name,
        backend=loaded.resolution.spec.name,
        reason=loaded.resolution.reason,
        dtype=loaded.dtype,
        kv_cache_dtype=config.kv_cache_dtype,
        max_model_len=loaded.plan.limits.max_model_len,
        block_size=loaded.plan.limits.block_size,
        num_blocks=tuple(loaded.plan.num_blocks),
        vocab_size=model.vocab_size,
        max_logprobs=config.max_logprobs,
        max_num_seqs=config.max_num_seqs,
        default_sampling_params=loaded.default_sampling_params,
    )
