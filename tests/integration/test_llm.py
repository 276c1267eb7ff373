"""``LLM`` as a user meets it, on the real model."""

from __future__ import annotations

import dataclasses
import math

import pytest

from octavo import LLM, SamplingParams
from octavo.errors import CapacityError, UsageError


@pytest.fixture(scope="module")
def llm(smollm2_path):
    llm = LLM(str(smollm2_path), device="cpu", backend="numpy", quiet=True, max_model_len=512)
    yield llm
    llm.close()


GREEDY = SamplingParams(temperature=0, max_tokens=12)


def test_one_prompt_or_many_in_every_form(llm):
    text = "The capital of France is"
    ids = llm.get_tokenizer().encode(text)
    prompts = [text, {"prompt": text}, {"prompt_token_ids": ids}, ids]
    together = [output.outputs[0].token_ids for output in llm.generate(prompts, GREEDY)]
    alone = [llm.generate(prompt, GREEDY)[0].outputs[0].token_ids for prompt in prompts]
    assert len({tuple(tokens) for tokens in together + alone}) == 1


def test_a_seed_gives_the_same_answer_alone_and_in_a_batch(llm):
    params = SamplingParams(temperature=1.0, top_p=0.95, seed=11, max_tokens=16)
    alone = llm.generate("Once upon a time", params)[0].outputs[0].text
    crowd = llm.generate(["Water", "Once upon a time", "The sea"], [params] * 3)
    assert crowd[1].outputs[0].text == alone
    other = llm.generate(
        "Once upon a time", SamplingParams(temperature=1.0, seed=12, max_tokens=16)
    )
    assert other[0].outputs[0].text != alone


def test_parallel_answers_differ_and_each_can_be_had_again(llm):
    params = SamplingParams(n=3, temperature=1.0, seed=5, max_tokens=10)
    first = [answer.text for answer in llm.generate("My favourite", params)[0].outputs]
    again = [answer.text for answer in llm.generate("My favourite", params)[0].outputs]
    assert first == again
    assert len(set(first)) == 3


def test_streamed_pieces_add_up_to_the_answer(llm):
    whole = llm.generate("Il était une fois", GREEDY)[0].outputs[0]
    pieces = list(llm.stream("Il était une fois", GREEDY))
    assert "".join(piece.outputs[0].text for piece in pieces) == whole.text
    streamed = [token for piece in pieces for token in piece.outputs[0].token_ids]
    assert streamed == whole.token_ids
    assert pieces[-1].finished


def test_two_streams_may_be_read_in_turn(llm):
    expected = [output.outputs[0].text for output in llm.generate(["One, two,", "A, B,"], GREEDY)]
    streams = [llm.stream(prompt, GREEDY) for prompt in ("One, two,", "A, B,")]
    texts = ["", ""]
    for pair in zip(*streams, strict=True):
        texts = [text + piece.outputs[0].text for text, piece in zip(texts, pair, strict=True)]
    assert texts == expected


def test_closing_a_stream_frees_its_blocks(llm):
    stream = llm.stream("Once upon a time", SamplingParams(max_tokens=200))
    next(stream)
    stream.close()
    scheduler = llm.loaded.engine.scheduler
    assert scheduler.num_running == 0
    assert scheduler.stats.groups[0].num_used == 0
    scheduler.check_integrity()


def test_a_stop_string_across_tokens_ends_the_text_before_it(llm):
    whole = llm.generate("1, 2, 3, 4,", SamplingParams(temperature=0, max_tokens=30))[0].outputs[0]
    stop = whole.text[7:12]
    params = SamplingParams(temperature=0, max_tokens=30, stop=[stop])
    answer = llm.generate("1, 2, 3, 4,", params)[0].outputs[0]
    assert answer.text == whole.text[: whole.text.index(stop)]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)
    kept = dataclasses.replace(params, include_stop_str_in_output=True)
    text = llm.generate("1, 2, 3, 4,", kept)[0].outputs[0].text
    assert text == whole.text[: whole.text.index(stop) + len(stop)]


def test_logprobs_are_of_the_chosen_token_and_its_rivals(llm):
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=3, prompt_logprobs=1)
    output = llm.generate("The capital of France is", params)[0]
    answer = output.outputs[0]
    for token_id, entry in zip(answer.token_ids, answer.logprobs, strict=True):
        assert next(iter(entry)) == token_id
        assert len(entry) == 3
        assert entry[token_id].rank == 1
        assert entry[token_id].logprob == max(logprob.logprob for logprob in entry.values())
    pairs = zip(answer.token_ids, answer.logprobs, strict=True)
    chosen = [entry[token].logprob for token, entry in pairs]
    assert math.isclose(answer.cumulative_logprob, sum(chosen), rel_tol=1e-6)
    assert output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids)
    for token_id, entry in zip(
        output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True
    ):
        assert token_id in entry


def test_prompt_logprobs_equal_those_of_answers(llm):
    """The log-probability of a token is the same whether it was generated or given."""
    params = SamplingParams(temperature=0, max_tokens=6, logprobs=0)
    first = llm.generate("The sea is", params)[0]
    answer = first.outputs[0]
    given = llm.generate(
        [first.prompt_token_ids + answer.token_ids],
        SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0),
    )[0]
    for token_id, entry, prompt_entry in zip(
        answer.token_ids, answer.logprobs, given.prompt_logprobs[-6:], strict=True
    ):
        assert prompt_entry[token_id].logprob == pytest.approx(entry[token_id].logprob, abs=1e-3)


def test_chat_keeps_to_the_template(llm):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    output = llm.chat(messages, SamplingParams(temperature=0, max_tokens=32))[0]
    assert output.prompt.endswith("<|im_start|>assistant\n")
    assert output.outputs[0].text == "The capital of France is Paris."
    both = llm.chat([messages, messages], SamplingParams(temperature=0, max_tokens=32))
    assert [answer.outputs[0].text for answer in both] == [output.outputs[0].text] * 2


def test_bad_words_and_allowed_tokens_are_kept_to(llm):
    banned = SamplingParams(temperature=0, max_tokens=8, bad_words=["Paris"])
    assert "Paris" not in llm.generate("The capital of France is", banned)[0].outputs[0].text
    allowed = llm.get_tokenizer().encode(" yes no")
    only = SamplingParams(temperature=0, max_tokens=5, allowed_token_ids=allowed)
    assert set(llm.generate("Is it?", only)[0].outputs[0].token_ids) <= set(allowed)


@pytest.mark.parametrize(
    ("prompt", "params", "error", "message"),
    [
        ("", GREEDY, UsageError, "empty"),
        ([1] * 600, GREEDY, CapacityError, "600 tokens, and the context holds 512"),
        ([10**6], GREEDY, UsageError, "vocabulary of 49152"),
        ("x", SamplingParams(logprobs=50), UsageError, "logprobs"),
        ("x", SamplingParams(logit_bias={10**6: 1.0}), UsageError, "logit_bias"),
        ("x", [GREEDY] * 2, UsageError, "2 entries for 1 prompts"),
    ],
)
def test_what_cannot_be_served_is_refused_and_nothing_is_left_behind(
    llm, prompt, params, error, message
):
    with pytest.raises(error, match=message):
        llm.generate([prompt], params)
    assert not llm.loaded.engine.has_unfinished_requests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_nun_seqs": 4}, "Did you mean 'max_num_seqs'"),
        ({"dtype": "float8"}, "use auto or one of .*float32"),
        ({"block_size": 7}, "block_size=7"),
        ({"max_model_len": 10**6}, "positions that this model knows"),
        ({"kv_cache_memory_bytes": 1000}, "at least"),
        ({"kv_cache_memory_bytes": 10 << 20, "max_model_len": 4096}, "Lower max_model_len to"),
    ],
)
def test_options_that_cannot_work_say_why(smollm2_path, options, message):
    with pytest.raises(UsageError, match=message):
        LLM(str(smollm2_path), device="cpu", quiet=True, **options)
