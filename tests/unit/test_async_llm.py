"""AsyncLLM over the NULL backend: many consumers, one engine thread, cancellation frees blocks."""

from __future__ import annotations

import asyncio
import types

import pytest
from null_engine import answer, make_engine

from octavo.async_llm import AsyncLLM
from octavo.errors import BackendError, UsageError
from octavo.sampling_params import RequestOutputKind, SamplingParams


@pytest.fixture
def llm():
    loaded = types.SimpleNamespace(
        engine=make_engine(max_num_seqs=4),
        default_sampling_params=SamplingParams(),
        close=lambda: None,
    )
    llm = AsyncLLM.from_loaded(loaded)
    yield llm
    llm.close()


def params(max_tokens, kind=RequestOutputKind.DELTA):
    return SamplingParams(temperature=0, max_tokens=max_tokens, detokenize=False, output_kind=kind)


async def collect(llm, prompt, max_tokens):
    pieces = []
    async for output in llm.generate(prompt, params(max_tokens)):
        pieces += output.outputs[0].token_ids
    return pieces


async def until_idle(llm):
    """Wait until the engine's thread has nothing left; everything is freed then."""
    for _ in range(1000):
        if not llm._engine.has_unfinished_requests:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the engine is still busy after 10 s")


def test_many_consumers_get_their_own_answers(llm):
    async def main():
        prompts = [[index + 1, 7, index] for index in range(12)]
        answers = await asyncio.gather(*(collect(llm, prompt, 15) for prompt in prompts))
        assert answers == [answer(prompt, 15, (None,)) for prompt in prompts]

    asyncio.run(main())


def test_closing_a_generator_ends_its_request_and_no_other(llm):
    async def main():
        other = asyncio.create_task(collect(llm, [9, 9], 40))
        stream = llm.generate([1, 2, 3], params(200))
        await anext(stream)
        await stream.aclose()
        assert await other == answer([9, 9], 40, (None,))
        await until_idle(llm)
        assert llm._engine.scheduler.num_running == 0
        llm._engine.scheduler.check_integrity()

    asyncio.run(main())


def test_cancelling_a_task_ends_its_request(llm):
    async def main():
        task = asyncio.create_task(collect(llm, [1, 2, 3], 200))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_idle(llm)

    asyncio.run(main())


def test_abort_by_id_ends_the_stream_with_the_reason(llm):
    async def main():
        reasons = []
        stream = llm.generate([1, 2], params(240), request_id="mine")
        async for output in stream:
            reasons.append(output.outputs[0].finish_reason)
            if len(reasons) == 1:
                await llm.abort("mine")
        assert reasons[-1] == "abort"
        assert len(reasons) < 240

    asyncio.run(main())


def test_a_bad_request_raises_where_it_was_made(llm):
    async def main():
        with pytest.raises(UsageError, match="prompt is empty"):
            await collect(llm, [], 5)
        assert await collect(llm, [4], 5) == answer([4], 5, (None,))

    asyncio.run(main())


def test_a_closed_llm_says_so(llm):
    async def main():
        llm.close()
        with pytest.raises(BackendError, match="closed"):
            await collect(llm, [1], 1)

    asyncio.run(main())


def test_a_consumer_whose_loop_is_gone_does_not_stop_the_engine(llm):
    async def leave():
        await anext(llm.generate([5, 6], params(100)))

    asyncio.run(leave())
    assert asyncio.run(collect(llm, [4], 5)) == answer([4], 5, (None,))
