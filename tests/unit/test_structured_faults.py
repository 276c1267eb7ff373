"""Whatever happens to a step, a grammar advances by the answer's tokens, each once."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from drawing_backend import POISON, DrawingBackend
from null_engine import VOCAB_SIZE, make_engine

from octavo.completion import Vocabulary
from octavo.sampling_params import SamplingParams
from octavo.structured import StructuredOutputs
from octavo.structured.compiler import GrammarCompiler

# Digits and letters over and over, so that there are many tokens to choose from; the last ids are
# special: the end, and what the NULL backend fails at.
PIECES = [bytes([b"0123456789abcdef"[i % 16]]) * (1 + i % 3) for i in range(VOCAB_SIZE - 2)]
EOS = VOCAB_SIZE - 2
COMPILER = GrammarCompiler(
    Vocabulary(
        VOCAB_SIZE,
        SimpleNamespace(
            vocab_size=VOCAB_SIZE,
            pieces=dict(enumerate([*PIECES, b"</s>", b"<poison>"])),
            special_ids=frozenset({EOS, POISON}),
        ),
        frozenset({EOS}),
    )
)
REGEX = "([0-9]{3}[a-f]{2}){4,}"
FORM = re.compile(f"({REGEX})[0-9]{{0,3}}[a-f]{{0,2}}|[0-9a-f]{{0,20}}")


def ask(engine, num_requests=6, n=2, max_tokens=24):
    params = SamplingParams(n=n, max_tokens=max_tokens, detokenize=False, stop_token_ids=[EOS])
    for index in range(num_requests):
        mask = COMPILER.mask_for(StructuredOutputs(regex=REGEX))
        engine.add_request(str(index), [index + 1] * 20, params, token_mask=mask)


def answers(engine):
    """Each answer's tokens, by (request, answer)."""
    found = {}
    for _ in range(3000):
        for output in engine.step():
            assert output.error is None
            for answer in output.outputs:
                found[output.request_id, answer.index] = answer.token_ids
        engine.scheduler.check_integrity()
        if not engine.has_unfinished_requests:
            return found
    raise AssertionError("it does not end")


def undisturbed(**options):
    engine = make_engine(backend=DrawingBackend(), **options)
    ask(engine)
    found = answers(engine)
    assert len(found) == 12
    for token_ids in found.values():
        text = b"".join(PIECES[token_id] for token_id in token_ids if token_id != EOS).decode()
        assert FORM.fullmatch(text)
        if token_ids[-1] == EOS:
            assert re.fullmatch(REGEX, text)
    assert len({tuple(token_ids) for token_ids in found.values()}) == 12
    return found


@pytest.mark.parametrize("member", ["put", "get", "plan", "step", "after_step"])
def test_steps_that_fail_do_not_advance_a_grammar(member):
    expected = undisturbed()
    for period in (5, 9):
        backend = DrawingBackend()
        engine = make_engine(backend=backend)
        calls = iter(range(1, 1 << 30))

        def fault(called, engine=engine, calls=calls, period=period):
            if called == member and engine._recovery.suspect is None and not next(calls) % period:
                raise RuntimeError("injected")

        ask(engine)
        backend.fault = fault
        assert answers(engine) == expected


@pytest.mark.parametrize("preemption_mode", ["swap", "recompute"])
def test_preemption_does_not_advance_a_grammar(preemption_mode):
    engine = make_engine(
        backend=DrawingBackend(),
        num_cache_tokens=120,
        max_model_len=96,
        preemption_mode=preemption_mode,
        swap_space=0.001,
    )
    ask(engine)
    found = answers(engine)
    assert found == undisturbed()
    stats = engine.scheduler.stats
    assert getattr(stats, f"num_{preemption_mode}_preemptions") > 0
