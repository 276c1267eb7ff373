"""Tiny models: every architecture is there, and requests run through an engine to their end."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.backend import Capabilities
from octavo.loading.dummy import DummySource
from octavo.models.registry import KNOWN, build_model
from octavo.testing.answers import generate, greedy
from octavo.testing.family_vectors import family_vectors
from octavo.testing.subject import Subject
from octavo.testing.tiny_models import TINY_MODELS, VOCAB_SIZE

NUMPY = Subject.installed("numpy")


def test_every_architecture_has_a_tiny_model():
    tiny = {name for model in TINY_MODELS.values() for name in model.config["architectures"]}
    multimodal = {"Gemma3ForConditionalGeneration"}  # the same class, of which it is the text part
    assert tiny == KNOWN.keys() - multimodal


def test_they_are_tiny_and_of_one_vocabulary():
    for model in TINY_MODELS.values():
        built = build_model(model.config)
        assert built.num_parameters < 200_000, model.name
        assert built.vocab_size == VOCAB_SIZE


def test_there_are_models_of_two_kv_groups():
    groups = {
        name: len(set(build_model(model.config).kv_specs("float32")))
        for name, model in TINY_MODELS.items()
    }
    assert {name for name, count in groups.items() if count == 2} == {"gemma2", "gemma3"}


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("gemma2", {"sliding_window": True}, "caps.soft_cap is False"),
        ("mistral", {}, "caps.sliding_window is False"),
        ("qwen3", {"max_head_dim": 16}, "caps.max_head_dim=16 is less than this model's 24"),
        ("gpt2", {"max_head_dim": 8}, "caps.max_head_dim=8 is less than this model's 16"),
        ("llama", {}, None),
    ],
)
def test_what_a_backend_does_not_claim(name, changes, reason):
    caps = Capabilities(("float32",), ("float32",), **changes)
    assert TINY_MODELS[name].unclaimed(caps) == reason


def test_biases_of_a_dummy_checkpoint_are_there_and_count():
    """``DummySource.has`` denies them, but families that know they have them read them."""
    vector, model = family_vectors()["qwen2"], TINY_MODELS["qwen2"]
    name = "model.layers.0.self_attn.q_proj.bias"
    assert (
        np.abs(DummySource(model.config, vector.seed).read_shaped(name, (64,), "float32")).min() > 0
    )
    with NUMPY.engine(model.config, seed=vector.seed, dtype="float32") as loaded:
        (weights,) = loaded.engine.runner._device_step.weights.layers[0].attention.qkv
    assert weights.bias is not None


def test_generate_returns_what_was_asked_for():
    vector, model = family_vectors()["llama"], TINY_MODELS["llama"]
    prompts = [vector.prompt, vector.prompt[:5], vector.prompt[:7]]
    params = [
        greedy(prompt_logprobs=0),
        greedy(3, logprobs=2),
        greedy(4, logprobs=None, n=2, temperature=1.0, seed=3),
    ]
    with NUMPY.engine(model.config, seed=vector.seed, dtype="float32") as loaded:
        first, second, *drawn = generate(loaded, prompts, params)
    assert list(first.token_ids) == [token.token_id for token in vector.answer]
    np.testing.assert_allclose(first.prompt_logprobs, vector.prompt_logprobs, atol=1e-4)
    assert first.finish_reason == "length"
    assert first.error is None
    assert second.token_ids[0] == vector.after_prefix[4].token_id
    assert [len(entry) for entry in second.likeliest] == [2, 2, 2]
    for token_id, logprob, entry in zip(
        second.token_ids, second.logprobs, second.likeliest, strict=True
    ):
        assert entry[token_id] == logprob == max(entry.values())
    assert second.prompt_logprobs == ()
    assert [len(answer.token_ids) for answer in drawn] == [4, 4]
    assert drawn[0].token_ids != drawn[1].token_ids
    assert drawn[0].logprobs == drawn[0].likeliest == ()


class Endless:
    """An engine that never has done."""

    class Runner:
        def launch(self, schedule):
            return schedule

        def wait(self, flight):
            return flight

    def __init__(self):
        self.runner = self.Runner()
        self.engine = self
        self.num_unfinished_requests = 1
        self.has_unfinished_requests = True

    def add_request(self, *_arguments):
        pass

    def step(self):
        return []


def test_generate_does_not_wait_for_ever():
    loaded = Endless()
    with pytest.raises(RuntimeError, match="1 requests are unfinished after 10000 steps"):
        generate(loaded, [[1]])
    assert not vars(loaded.runner)


def test_a_step_that_raises_is_a_finding_although_the_engine_recovers():
    vector, model = family_vectors()["llama"], TINY_MODELS["llama"]
    with NUMPY.engine(model.config, seed=vector.seed, dtype="float32") as loaded:
        step, num_calls = loaded.engine.runner._step.run, []

        def failing_once(*arguments, **options):
            num_calls.append(1)
            if len(num_calls) == 3:
                raise OSError("the third step fails")
            return step(*arguments, **options)

        loaded.engine.runner._step.run = failing_once
        with pytest.raises(OSError, match="the third step fails"):
            generate(loaded, [vector.prompt])
