"""Faults outside of steps: loading, closing, and what LLM and AsyncLLM make of failed requests."""

from __future__ import annotations

import asyncio
import dataclasses
import types

import pytest
from drawing_backend import POISON, DrawingBackend
from null_engine import make_engine

from octavo.async_llm import AsyncLLM
from octavo.engine_loader import LoadedEngine
from octavo.errors import BackendError, CapacityError, RequestFailedError
from octavo.llm import LLM
from octavo.sampling_params import SamplingParams
from octavo.testing.checks import fault_loads, fault_steps
from octavo.testing.faulty import FaultyBackend, InjectedFault
from octavo.testing.faulty_engine import FaultyEngine
from octavo.testing.subject import Subject
from octavo.testing.tiny_models import TINY_MODELS

LLAMA = TINY_MODELS["llama"].config


@pytest.fixture(scope="module")
def subject():
    subject = Subject.installed("numpy")
    yield subject
    subject.close()


def load(subject, *faults, **options):
    """Load a tiny model with faults; the proxy, and the error if there was one."""
    proxies = []

    def wrap(backend):
        proxies.append(FaultyBackend(backend, *faults))
        return proxies[0]

    with subject.engine(LLAMA, wrap=wrap, **options):
        pass
    return proxies[0]


@pytest.mark.parametrize("member", ["put", "put_linear", "make_kv", "compile", "memory"])
@pytest.mark.parametrize(
    ("kind", "error", "cause"),
    [
        ("raise", BackendError, "InjectedError: fault injected into"),
        ("out_of_memory", CapacityError, "MemoryError: .*out of memory.*(lower|smaller)"),
    ],
)
def test_an_error_at_load_names_backend_and_member(subject, member, kind, error, cause):
    options = {"kv_cache_memory_bytes": None} if member == "memory" else {}
    with pytest.raises(error, match=f"'numpy' failed in {member}: {cause}") as caught:
        load(subject, InjectedFault(member, kind), **options)
    assert type(caught.value) is error


def test_swap_space_that_cannot_be_made_or_copied_to_is_named(subject):
    with pytest.raises(BackendError, match="failed in copy_blocks"):
        load(subject, InjectedFault("copy_blocks"), swap_space=0.01)
    with pytest.raises(CapacityError, match=r"failed in make_kv.*swap_space"):
        load(subject, InjectedFault("make_kv", "out_of_memory", call=2), swap_space=0.01)


def test_a_close_that_raises_does_not_hide_the_first_error(subject, caplog):
    faults = InjectedFault("put_linear"), InjectedFault("close")
    with pytest.raises(BackendError, match="failed in put_linear"):
        load(subject, *faults)
    assert "'numpy' failed in close" in caplog.text


def test_a_close_that_raises_is_an_error_of_its_own(subject, caplog):
    with pytest.raises(BackendError, match="'numpy' failed in close: InjectedError"):
        load(subject, InjectedFault("close"))
    assert caplog.text == ""


def test_a_close_that_raises_after_another_error_is_only_logged(subject, caplog):
    def wrap(backend):
        return FaultyBackend(backend, InjectedFault("close"))

    with pytest.raises(ZeroDivisionError), subject.engine(LLAMA, wrap=wrap):
        raise ZeroDivisionError
    assert "'numpy' failed in close" in caplog.text


def test_a_close_that_hangs_is_found(subject, monkeypatch):
    monkeypatch.setattr("octavo.testing.faulty_engine.CLOSE_LIMIT_S", 0.05)
    hanging = FaultyBackend.close

    def close(self):
        self.arm(InjectedFault("close", "hang"))
        self._released.clear()
        hanging(self)

    monkeypatch.setattr(FaultyBackend, "close", close)
    with pytest.raises(AssertionError, match=r"close gave no answer in time"):
        fault_loads._check_close(subject, None)


def test_nan_reaches_the_one_request_and_its_blocks(subject):
    fault = InjectedFault("put", "nan", token_id=7)
    params = SamplingParams(temperature=0, max_tokens=3, prompt_logprobs=0)
    with FaultyEngine.open(subject, fault) as faulty:
        outputs = faulty.serve({"bad": ([1, 7, 2], params), "good": ([1, 2, 3], params)}).outputs
    assert "hold NaN" in outputs["bad"].error
    assert outputs["good"].error is None


def llm_over(engine, kind=LLM):
    loaded = types.SimpleNamespace(
        engine=engine, default_sampling_params=SamplingParams(), close=engine.close
    )
    if kind is AsyncLLM:
        return AsyncLLM.from_loaded(loaded)
    llm = LLM.__new__(LLM)
    llm._loaded, llm._engine, llm._inbox = loaded, engine, {}
    llm._ids = iter(map(str, range(100)))
    return llm


PARAMS = SamplingParams(temperature=0, max_tokens=5, detokenize=False)


def test_the_answers_to_the_others_are_kept():
    llm = llm_over(make_engine(backend=DrawingBackend()))
    prompts = [[1, 2], [POISON], [3]]
    with pytest.raises(RequestFailedError, match=r"1 of 3 requests.*a poisoned token") as caught:
        llm.generate(prompts, PARAMS, use_tqdm=False)
    good, bad, last = caught.value.outputs
    assert [len(output.outputs[0].token_ids) for output in (good, bad, last)] == [5, 0, 5]
    assert bad.error is not None
    assert good.error is last.error is None
    assert llm.generate([[1, 2]], PARAMS, use_tqdm=False)[0].outputs == good.outputs


def test_a_request_that_fails_ends_its_own_stream_only():
    llm = llm_over(make_engine(backend=DrawingBackend()), AsyncLLM)

    async def tokens(prompt):
        return [output.outputs[0].token_ids async for output in llm.generate(prompt, PARAMS)]

    async def main():
        found = await asyncio.gather(tokens([1, 2]), tokens([POISON]), return_exceptions=True)
        assert len(found[0]) == 5
        assert isinstance(found[1], BackendError)
        assert "a poisoned token" in str(found[1])

    asyncio.run(main())
    llm.close()


def test_requests_after_a_hang_are_refused():
    backend = DrawingBackend()
    proxy = FaultyBackend(backend, InjectedFault("step", "hang", call=1))
    engine = make_engine(backend=proxy, step_timeout_s=0.1)
    llm = llm_over(engine, AsyncLLM)

    async def main():
        async def ask():
            return [output async for output in llm.generate([1, 2], PARAMS)]

        for _ in range(2):
            with pytest.raises(BackendError, match="A step hangs"):
                await ask()

    asyncio.run(main())
    llm.close()
    proxy.release()


def test_what_hangs_keeps_its_backend_open():
    closed = []
    engine = types.SimpleNamespace(is_hung=True)
    backend = types.SimpleNamespace(close=lambda: closed.append("backend"))
    fields = dict.fromkeys(
        ("config", "resolution", "bindings", "checkpoint", "plan", "dtype"), None
    )
    LoadedEngine(
        engine=engine, backend=backend, default_sampling_params=SamplingParams(), **fields
    ).close()
    assert closed == []


class KeepsTheFirstCaches(FaultyBackend):
    """Its graph has the addresses of the first caches; new ones are returned, and never used."""

    def compile(self, step):
        compiled, first = super().compile(step), []

        def run(weights, caches, *arguments):
            if not caches:  # the part that samples
                return compiled(weights, caches, *arguments)
            first.append(caches)
            _, *results = compiled(weights, first[0], *arguments)
            return caches, *results

        return run


def test_forks_after_a_failure_show_which_caches_are_written_to(subject):
    faults = InjectedFault("step"), InjectedFault("copy_blocks")

    def mutant():
        opened = Subject.installed("numpy").open()
        return dataclasses.replace(opened, backend=KeepsTheFirstCaches(opened.backend))

    class Mutated(Subject):
        open = lambda _self: mutant()  # noqa: E731

    fault_steps._check_passing(subject, faults)
    broken = Mutated(subject.policy, subject.plugins, subject.resolution)
    with pytest.raises(AssertionError, match=r"'forked'.* undisturbed it answers"):
        fault_steps._check_passing(broken, faults)
    broken.close()
