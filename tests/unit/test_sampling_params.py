"""SamplingParams: vLLM's defaults, its refusals by name, and its normalisations."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest

from octavo.errors import OctavoError, UsageError
from octavo.sampling_params import RequestOutputKind, SamplingParams

VLLM_DEFAULTS = {
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "seed": None,
    "stop": (),
    "stop_token_ids": (),
    "ignore_eos": False,
    "max_tokens": 16,
    "min_tokens": 0,
    "logprobs": None,
    "prompt_logprobs": None,
    "detokenize": True,
    "skip_special_tokens": True,
    "kept_special_tokens": (),
    "spaces_between_special_tokens": True,
    "include_stop_str_in_output": False,
    "output_kind": RequestOutputKind.CUMULATIVE,
    "logit_bias": None,
    "allowed_token_ids": None,
    "bad_words": (),
    "truncate_prompt_tokens": None,
    "structured_outputs": None,
    "thinking_token_budget": None,
}
NUMBERS = (
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "min_p",
)
INTEGERS = (
    "n",
    "top_k",
    "seed",
    "max_tokens",
    "min_tokens",
    "logprobs",
    "prompt_logprobs",
    "truncate_prompt_tokens",
)
BOOLEANS = (
    "ignore_eos",
    "detokenize",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "include_stop_str_in_output",
)


def test_defaults():
    assert vars(SamplingParams()) == VLLM_DEFAULTS


ACCEPTED = [
    {"n": 16_384},
    {"presence_penalty": -2},
    {"presence_penalty": 2},
    {"frequency_penalty": -2},
    {"frequency_penalty": 2},
    {"repetition_penalty": 1e-3},
    {"repetition_penalty": 50},
    {"temperature": 2},
    {"top_p": 1e-9},
    {"top_k": 1},
    {"min_p": 1},
    {"seed": 0},
    {"seed": 2**63 - 1},
    {"seed": -(2**63)},
    {"max_tokens": 1},
    {"max_tokens": None, "min_tokens": 1000},
    {"max_tokens": 5, "min_tokens": 5},
    {"logprobs": 0},
    {"logprobs": -1},
    {"prompt_logprobs": 0},
    {"truncate_prompt_tokens": -1},
    {"truncate_prompt_tokens": 1},
    {"output_kind": RequestOutputKind.DELTA},
    {"detokenize": False, "stop_token_ids": (3,)},
]


@pytest.mark.parametrize("values", ACCEPTED, ids=str)
def test_accepted_and_kept(values):
    params = SamplingParams(**values)
    assert {name: getattr(params, name) for name in values} == values


REFUSED = [
    ({"n": 0}, r"n must be in \[1, 16384\], got 0"),
    ({"n": 16_385}, r"n must be in \[1, 16384\], got 16385"),
    ({"n": None}, "n must be an integer, got None"),
    ({"presence_penalty": 2.01}, r"presence_penalty must be in \[-2, 2\], got 2.01"),
    ({"frequency_penalty": -2.01}, r"frequency_penalty must be in \[-2, 2\], got -2.01"),
    ({"repetition_penalty": 0}, r"repetition_penalty must be in \[1e-06, 1e\+06\], got 0"),
    ({"repetition_penalty": 2.17e-102}, "repetition_penalty.*got 2.17e-102"),
    ({"repetition_penalty": 1e300}, r"repetition_penalty.*got 1e\+300"),
    ({"repetition_penalty": -1.5}, "repetition_penalty.*got -1.5"),
    ({"temperature": -0.1}, r"temperature must be in \[0, 2\], got -0.1"),
    ({"temperature": 2.1}, r"temperature must be in \[0, 2\], got 2.1"),
    ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
    ({"top_p": 1.1}, r"top_p must be in \(0, 1\], got 1.1"),
    ({"top_k": -2}, r"top_k must be in \[-1, .*\], got -2"),
    ({"top_k": 2**31}, "top_k must be in .*got 2147483648"),
    ({"top_k": 5.0}, r"top_k must be an integer, got 5.0 \(float\)"),
    ({"min_p": -0.1}, r"min_p must be in \[0, 1\], got -0.1"),
    ({"min_p": 1.1}, r"min_p must be in \[0, 1\], got 1.1"),
    ({"seed": 2**63}, "seed must be in .*got 9223372036854775808"),
    ({"seed": 1.5}, "seed must be an integer or None"),
    ({"max_tokens": 0}, r"max_tokens must be in \[1, .*\], got 0"),
    ({"max_tokens": -1}, "max_tokens.*got -1"),
    ({"min_tokens": -1}, "min_tokens.*got -1"),
    ({"min_tokens": 17}, "min_tokens=17 is more than max_tokens=16"),
    ({"min_tokens": None}, "min_tokens must be an integer, got None"),
    ({"logprobs": -2}, r"logprobs must be in \[-1, .*\], got -2"),
    ({"prompt_logprobs": -2}, r"prompt_logprobs must be in \[-1, .*\], got -2"),
    ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens=0"),
    ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens.*got -2"),
    ({"stop": ""}, "stop cannot contain an empty string"),
    ({"stop": ["a", ""]}, "stop cannot contain an empty string"),
    ({"stop": [3]}, "stop must be a string or a list of strings"),
    ({"stop": b"x"}, "stop must be a string or a list of strings"),
    ({"stop": "a", "detokenize": False}, "stop=.*detokenize=True"),
    ({"stop_token_ids": [1.0]}, "stop_token_ids must be a list of integer token ids"),
    ({"stop_token_ids": ["1"]}, "stop_token_ids must be a list of integer token ids"),
    ({"stop_token_ids": 5}, "stop_token_ids must be a list of integer token ids"),
    ({"stop_token_ids": [True]}, "stop_token_ids must be a list of integer token ids"),
    ({"stop_token_ids": [-1]}, "stop_token_ids holds a negative token id"),
    ({"allowed_token_ids": []}, "allowed_token_ids is empty"),
    ({"allowed_token_ids": [-3]}, "allowed_token_ids holds a negative token id"),
    ({"bad_words": [""]}, "bad_words cannot contain an empty string"),
    ({"bad_words": [[1]]}, "bad_words must be a string or a list of strings"),
    ({"logit_bias": [1]}, "logit_bias must map token ids to numbers"),
    ({"logit_bias": {"a": 1}}, "logit_bias has the key 'a'"),
    ({"logit_bias": {"-1": 1}}, "logit_bias has the key '-1'"),
    ({"logit_bias": {-1: 1}}, "logit_bias has the key -1"),
    ({"logit_bias": {True: 1}}, "logit_bias has the key True"),
    ({"logit_bias": {1.5: 1}}, "logit_bias has the key 1.5"),
    ({"logit_bias": {1: "x"}}, r"logit_bias\[1\] must be a number"),
    ({"logit_bias": {1: math.nan}}, r"logit_bias\[1\]"),
    ({"logit_bias": {1: math.inf}}, r"logit_bias\[1\]"),
    ({"output_kind": 0}, "output_kind=0 is not a RequestOutputKind; choose from .*DELTA"),
    ({"n": 2, "temperature": 0}, "n must be 1 when using greedy sampling, got 2"),
    ({"structured_outputs": {"rexeg": "a"}}, "no 'rexeg'. Did you mean 'regex'"),
    ({"structured_outputs": "a"}, "must be a StructuredOutputs or a mapping with its names"),
    ({"thinking_token_budget": 0}, "thinking_token_budget is not supported yet"),
    *[
        ({name: value}, f"^{name} must be in .*got {value}")
        for name in NUMBERS
        for value in (math.nan, math.inf, -math.inf)
    ],
    *[
        ({name: value}, f"^{name} must be a number, got")
        for name in NUMBERS
        for value in (True, "0.5", None, [1.0])
    ],
    *[
        ({name: value}, f"^{name} must be an integer")
        for name in INTEGERS
        for value in (True, "1", 1.0, np.bool_(True))
    ],
    *[
        ({name: value}, f"^{name} must be True or False, got")
        for name in BOOLEANS
        for value in (1, None, "yes")
    ],
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_refused_by_name(values, message):
    with pytest.raises(UsageError, match=message) as caught:
        SamplingParams(**values)
    assert isinstance(caught.value, OctavoError)


def test_unknown_parameters_are_refused():
    with pytest.raises(TypeError, match="temprature"):
        SamplingParams(temprature=1)


def test_one_stop_string_becomes_a_tuple():
    assert SamplingParams(stop="END").stop == ("END",)
    assert SamplingParams(stop=["a", "b", "a"]).stop == ("a", "b")
    assert SamplingParams(stop=None, stop_token_ids=None, bad_words=None).stop == ()


def test_repeated_token_ids_count_once():
    assert SamplingParams(stop_token_ids=[3, 1, 3]).stop_token_ids == (3, 1)


def test_minus_one_means_off():
    params = SamplingParams(top_k=-1, seed=-1)
    assert (params.top_k, params.seed) == (0, None)


def test_numpy_numbers_are_numbers():
    params = SamplingParams(
        temperature=np.float32(0.5), top_k=np.int64(3), logit_bias={np.int32(1): 2}
    )
    assert (params.temperature, params.top_k, params.logit_bias) == (0.5, 3, {1: 2.0})
    assert type(params.temperature) is float
    assert type(params.top_k) is int


def test_greedy_turns_the_filters_off():
    params = SamplingParams(temperature=0, top_p=0.5, top_k=3, min_p=0.2)
    assert params.is_greedy
    assert (params.top_p, params.top_k, params.min_p) == (1.0, 0, 0.0)
    assert not SamplingParams().is_greedy


def test_a_tiny_temperature_is_raised_with_a_warning(caplog):
    params = SamplingParams(temperature=1e-7)
    assert params.temperature == 0.01
    assert "temperature=1e-07 is raised to 0.01" in caplog.text


def test_logit_bias_is_clamped_with_a_warning_and_takes_json_keys(caplog):
    params = SamplingParams(logit_bias={"5": 200, 6: -101.5, 7: 3})
    assert params.logit_bias == {5: 100.0, 6: -100.0, 7: 3.0}
    assert "logit_bias['5']=200 is clamped to 100" in caplog.text
    assert "logit_bias[7]" not in caplog.text


def test_nothing_can_be_changed_afterwards():
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias)
    bias[1] = 5.0
    assert params.logit_bias == {1: 2.0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.temperature = 0.5


def test_equal_parameters_are_equal_hash_equally_and_survive_pickling():
    params = SamplingParams(logit_bias={1: 2}, stop="x")
    again = SamplingParams(logit_bias={1: 2.0}, stop=["x"])
    assert params == again == pickle.loads(pickle.dumps(params))  # noqa: S301
    assert hash(params) == hash(again)
    assert params != SamplingParams(stop="x")


def test_generation_config_gives_defaults_that_overrides_beat():
    config = {
        "_from_model_config": True,
        "eos_token_id": [1, 2],
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": None,
        "max_new_tokens": 99,
        "repetition_penalty": 1.05,
    }
    params = SamplingParams.from_generation_config(config, temperature=0.9, stop="x")
    assert params == SamplingParams(
        temperature=0.9, top_k=20, max_tokens=99, repetition_penalty=1.05, stop="x"
    )
    assert SamplingParams.from_generation_config({}) == SamplingParams()


def test_generation_config_is_validated_too():
    with pytest.raises(UsageError, match="top_p must be in"):
        SamplingParams.from_generation_config({"top_p": 3})


def test_an_unknown_override_is_refused_with_a_suggestion():
    with pytest.raises(UsageError, match=r"'temprature'.*Did you mean 'temperature'.*top_k"):
        SamplingParams.from_generation_config({}, temprature=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"logprobs": 21}, "logprobs=21 asks for 21 tokens.*max_logprobs=20"),
        ({"logprobs": -1}, "logprobs=-1 asks for 100 tokens.*max_logprobs=20"),
        ({"prompt_logprobs": 30}, "prompt_logprobs=30.*max_logprobs=20"),
        ({"stop_token_ids": [5, 100]}, "stop_token_ids holds.*: 100. Its vocabulary is 0 to 99"),
        ({"allowed_token_ids": list(range(95, 110))}, "allowed_token_ids.* 104 and 5 more"),
        ({"logit_bias": {100: 1}}, "logit_bias holds.*: 100"),
    ],
    ids=str,
)
def test_what_a_model_cannot_serve_is_refused(values, message):
    params = SamplingParams(**values)
    with pytest.raises(UsageError, match=message):
        params.validated_for(100, 20)


def test_what_a_model_can_serve_passes_unchanged():
    params = SamplingParams(
        logprobs=20,
        prompt_logprobs=20,
        stop_token_ids=[99],
        allowed_token_ids=[0],
        logit_bias={99: 1},
    )
    assert params.validated_for(100, 20) is params
    everything = SamplingParams(logprobs=-1, prompt_logprobs=-1)
    assert everything.validated_for(100, -1) is everything
