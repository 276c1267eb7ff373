"""Structured output from random weights: whatever the model wants, the answer keeps the form."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re

import jsonschema
import pytest
from structured_schemas import REFUSED, SCHEMAS

from octavo import AsyncLLM, SamplingParams, StructuredOutputs
from octavo.errors import RequestFailedError, UsageError
from octavo.sampling_params import RequestOutputKind
from structured_models import ask, byte_level_folder, open_llm, sentencepiece_folder

SEEDS = range(12)
REGEXES = (
    r"[a-c]{2,5}é?",
    r"\d{3}-\d{4}",
    r"(yes|no)(, (yes|no)){0,3}\.",
    r"[^a-z]{1,6}",
    r"a|b|ab|abc",
    r"[a-zäöüß一-龥]{1,9} = (0x[0-9A-F]{1,4}|[1-9][0-9]{0,3});\n",
    r"(?i:octavo)/\"[🙂-🙄é]\"",
)
CHOICES = ("yes", "no", "not at all", " 🙂 ", 'a "quote" / \\ or\n\tso', "日本")


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    llm = open_llm(byte_level_folder(tmp_path_factory.mktemp("byte-level")))
    yield llm
    llm.close()


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    llm = open_llm(sentencepiece_folder(tmp_path_factory.mktemp("sentencepiece")))
    yield llm
    llm.close()


@pytest.fixture(params=["byte_level", "sentencepiece"])
def llm(request):
    return request.getfixturevalue(request.param)


def structured(max_tokens=600, temperature=1.0, **outputs):
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        structured_outputs=StructuredOutputs(**outputs),
    )


def answers(llm, **outputs):
    """Answers drawn with several seeds, and the greedy one; each of them complete."""
    found = ask(llm, structured(**outputs), SEEDS)
    found += ask(llm, structured(temperature=0, **outputs), [None])
    assert {answer.finish_reason for answer in found} == {"stop"}
    return [answer.text for answer in found]


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_validates_against_its_schema(llm, name):
    schema = SCHEMAS[name]
    texts = answers(llm, json=schema, whitespace_pattern="[ \n]{1,3}")
    for text in texts:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    if name not in ("map", "const"):
        assert len(set(texts)) > 1  # the model still decides


def test_a_schema_may_be_text_and_whitespace_may_be_barred(llm):
    schema = SCHEMAS["nested objects"]
    for text in answers(llm, json=json.dumps(schema), disable_any_whitespace=True):
        value = json.loads(text)
        jsonschema.validate(value, schema)
        assert re.fullmatch(r'\{"user":\{"name":".*","at":\{"x":\d\}\}\}', text, re.DOTALL)


def test_any_json_object(llm):
    found = ask(llm, structured(max_tokens=300, json_object=True), range(24))
    texts = [answer.text for answer in found if answer.finish_reason == "stop"]
    assert len(texts) > 5
    assert {type(json.loads(text)) for text in texts} == {dict}


@pytest.mark.parametrize("regex", REGEXES)
def test_text_matches_its_regex_as_a_whole(llm, regex):
    texts = answers(llm, regex=regex)
    assert [text for text in texts if re.fullmatch(regex, text) is None] == []
    assert len(set(texts)) > 1


def test_the_answer_is_one_of_the_choices(llm):
    found = {answer.text for answer in ask(llm, structured(choice=CHOICES), range(40))}
    assert found <= set(CHOICES)
    assert len(found) > 2


GRAMMARS = {
    "Lark": ('start: item ("," item)~0..2\nitem: /[0-9]/ | "(" item ")"', r"[(0-9),]+"),
    "GBNF": (
        'root ::= item ("," item){0,2}\nitem ::= [0-9] | "(" item ")"  # a comment',
        r"[(0-9),]+",
    ),
    "Lark with JSON inside": (
        'start: "call " %json {"enum": ["f", "g"]} "!"',
        r'call "[fg]"!',
    ),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_text_follows_its_grammar(llm, name):
    grammar, form = GRAMMARS[name]
    for text in answers(llm, grammar=grammar):
        assert re.fullmatch(form, text)
        assert text.count("(") == text.count(")")


def test_a_grammar_may_name_special_tokens(byte_level):
    params = structured(grammar='start: "a" <|im_start|> "b"')
    kept = dataclasses.replace(params, skip_special_tokens=False)
    assert {answer.text for answer in ask(byte_level, kept, SEEDS)} == {"a<|im_start|>b"}
    assert {answer.text for answer in ask(byte_level, params, SEEDS)} == {"ab"}


def tag(trigger, begin=None):
    return {
        "triggers": [trigger],
        "structures": [
            {"begin": begin or trigger, "schema": {"enum": [7, 8]}, "end": "</f>"},
        ],
    }


@pytest.mark.parametrize("trigger", ["a", "e", "<|im_start|>"])
def test_what_follows_a_trigger_keeps_its_schema(byte_level, trigger):
    begin = trigger + "!"
    params = structured(max_tokens=200, structural_tag=tag(trigger, begin))
    favoured = {byte_level.get_tokenizer().token_to_id(trigger): 4.0}
    params = dataclasses.replace(params, skip_special_tokens=False, logit_bias=favoured)
    num_tags = 0
    for answer in ask(byte_level, params, SEEDS):
        parts = answer.text.split(trigger)[1:]
        if answer.finish_reason == "length":
            parts = parts[:-1]
        # The end may hold no trigger: a tag reads trigger, "!", value, "</f>", then free text.
        assert [part for part in parts if not re.match(r"![78]</f>", part)] == []
        num_tags += len(parts)
    assert num_tags > 10


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_kept_is_refused_with_the_reason(byte_level, name):
    schema, reason = REFUSED[name]
    with pytest.raises(
        UsageError, match=rf"(?s)structured_outputs.json cannot be used: .*{reason}"
    ):
        byte_level.generate("x", structured(json=schema))
    assert not byte_level.loaded.engine.has_unfinished_requests


def test_the_reason_is_about_what_the_user_wrote(byte_level):
    with pytest.raises(UsageError) as caught:
        byte_level.generate("x", structured(regex="(a"))
    assert str(caught.value) == (
        'structured_outputs.regex cannot be used: invalid regex "(a" (in regex): '
        "regex parse error:\n    (a\n    ^\nerror: unclosed group"
    )
    with pytest.raises(UsageError, match=r"2\(4\): .*nothing(?s:.*)b: nothing"):
        byte_level.generate("x", structured(grammar="start: b\nb: nothing"))


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"regex": "[a-"}, "unclosed character class"),
        ({"regex": "(?=a)b"}, "look"),
        ({"regex": r"(a)\1"}, "backreferences"),
        ({"regex": r"[^\s\S]"}, "no token"),
        ({"grammar": "start: nothing"}, "nothing"),
        ({"grammar": 'start: "a" <no_such_token>'}, "unknown special token"),
        ({"grammar": "start: start"}, "no token"),
        ({"grammar": "start: " + "(" * 5000 + '"a"' + ")" * 5000}, "nested"),
        ({"grammar": "root ::= a\n" + 'a ::= "a"\n' * 1000}, "1001 rules of GBNF; at most 1000"),
        ({"grammar": "hello"}, "neither|cannot be read as GBNF"),
        ({"grammar": 'root ::= "a" nothing'}, "cannot be read as GBNF.*nothing"),
        ({"json": {"type": "string"}, "whitespace_pattern": "[a-"}, "regex"),
    ],
)
def test_what_does_not_compile_is_refused_with_the_reason(byte_level, outputs, reason):
    with pytest.raises(UsageError, match=f"(?s)structured_outputs.*{reason}"):
        byte_level.generate("x", structured(**outputs))
    assert not byte_level.loaded.engine.has_unfinished_requests


def test_a_request_that_is_refused_takes_nobody_with_it(byte_level):
    good, bad = structured(choice=["a", "b"]), structured(regex="[")
    with pytest.raises(UsageError):
        byte_level.generate(["x", "y"], [good, bad])
    assert byte_level.generate("x", good)[0].outputs[0].text in "ab"


def test_streamed_pieces_add_up(llm):
    params = dataclasses.replace(structured(json=SCHEMAS["$ref"]), seed=3)
    whole = llm.generate("Say:", params)[0].outputs[0]
    pieces = list(llm.stream("Say:", params))
    assert "".join(piece.outputs[0].text for piece in pieces) == whole.text
    assert pieces[-1].outputs[0].finish_reason == "stop"
    assert len(pieces) == len(whole.token_ids)


def test_several_answers_go_their_own_ways(llm):
    params = dataclasses.replace(structured(json=SCHEMAS["$ref"]), n=8, seed=1)
    found = llm.generate("Say:", params)[0].outputs
    for answer in found:
        jsonschema.validate(json.loads(answer.text), SCHEMAS["$ref"])
    assert len({answer.text for answer in found}) > 4
    texts = [answer.text for answer in llm.generate("Say:", params)[0].outputs]
    assert texts == [answer.text for answer in found]


def test_others_in_the_batch_answer_as_they_do_alone(llm):
    free = SamplingParams(max_tokens=30, temperature=1.0)
    each = [dataclasses.replace(free, seed=seed) for seed in range(4)]
    forms = [{"regex": REGEXES[0]}, {"choice": CHOICES}, {"json": SCHEMAS["numbers"]}]
    each += [dataclasses.replace(structured(**form), seed=7) for form in forms]
    alone = [llm.generate("Say:", params)[0].outputs[0].token_ids for params in each]
    for order in (each, each[::-1]):
        together = llm.generate(["Say:"] * len(each), order)
        found = [output.outputs[0].token_ids for output in together]
        assert found == (alone if order is each else alone[::-1])


def test_an_asynchronous_engine_serves_and_refuses_alike(tmp_path):
    opened = open_llm(byte_level_folder(tmp_path))
    llm = AsyncLLM.from_loaded(opened.loaded)

    async def last(params):
        async for output in llm.generate("Say:", params):
            text = output.outputs[0].text
        return text

    async def main():
        kind = RequestOutputKind.CUMULATIVE
        good = [
            dataclasses.replace(structured(choice=["left", "right"]), seed=seed, output_kind=kind)
            for seed in range(6)
        ]
        assert set(await asyncio.gather(*map(last, good))) <= {"left", "right"}
        with pytest.raises(UsageError, match="unclosed"):
            await last(structured(regex="[a"))

    asyncio.run(main())
    llm.close()


def test_the_end_comes_no_sooner_than_min_tokens_where_there_is_a_choice(llm):
    params = dataclasses.replace(structured(regex="a{1,40}"), min_tokens=6)
    for answer in ask(llm, params, SEEDS):
        assert re.fullmatch("a{1,40}", answer.text)
        assert len(answer.token_ids) >= 6 or answer.text == "a" * 40


def test_an_answer_ends_where_nothing_can_follow_without_a_token_for_it(llm):
    for changes in ({}, {"ignore_eos": True}, {"min_tokens": 50, "max_tokens": 60}):
        [answer] = ask(llm, structured(choice=["ab"]), [0], **changes)
        assert (answer.text, answer.finish_reason, answer.stop_reason) == ("ab", "stop", None)
        assert llm.get_tokenizer().decode(answer.token_ids).strip() == "ab"


def test_ignore_eos_goes_on_as_far_as_the_grammar_does(llm):
    for answer in ask(llm, structured(regex="(ab){1,9}"), SEEDS, ignore_eos=True):
        assert answer.text == "ab" * 9
        assert answer.finish_reason == "stop"
    [answer] = ask(llm, structured(regex="(ab)+", max_tokens=20), [0], ignore_eos=True)
    assert (len(answer.token_ids), answer.finish_reason) == (20, "length")


def test_stop_strings_and_limits_still_end_an_answer(llm):
    params = structured(regex="[ab]*cd[ab]*", max_tokens=200)
    for answer in ask(llm, params, SEEDS, stop=["cd"]):
        assert re.fullmatch("[ab]*", answer.text)
        assert answer.stop_reason == "cd"
    [short] = ask(llm, structured(regex="a{99}", max_tokens=3), [0])
    assert (len(short.token_ids), short.finish_reason) == (3, "length")


def test_a_bias_works_within_the_grammar(llm):
    token_id = llm.get_tokenizer().encode("ab", add_special_tokens=False)[-1]
    favourite = llm.get_tokenizer().token_to_id("b")
    params = structured(regex="[abc]")
    for answer in ask(llm, params, SEEDS, logit_bias={favourite: 100, token_id: 100}):
        assert answer.text == "b"


def test_allowed_tokens_and_the_grammar_meet(llm):
    encode = llm.get_tokenizer().token_to_id
    only = [encode("b"), encode("c"), encode("7")]
    for answer in ask(llm, structured(regex="[ab]{2,4}"), SEEDS, allowed_token_ids=only):
        assert answer.text == "bbbb"  # no token that ends an answer is allowed, so it goes on
    for answer in ask(llm, structured(regex="b+a|b"), [0], allowed_token_ids=[encode("b")]):
        assert set(answer.text) == {"b"}


def test_where_options_leave_no_token_that_request_ends_and_no_other(llm):
    stuck = dataclasses.replace(
        structured(regex="[ab]x"), allowed_token_ids=[llm.get_tokenizer().token_to_id("a")]
    )
    fine = structured(choice=["yes"])
    with pytest.raises(RequestFailedError, match="excluded by this request's other opt") as caught:
        llm.generate(["Say:", "Say:", "Say:"], [fine, stuck, fine])
    outputs = caught.value.outputs
    assert [output.outputs[0].finish_reason for output in outputs] == ["stop", "error", "stop"]
    assert outputs[0].outputs[0].text == "yes"
    assert outputs[1].outputs[0].text == "a"


def test_an_answer_that_may_end_does_where_options_leave_nothing_else(llm):
    params = structured(regex="a(b)?", temperature=0)
    tokenizer = llm.get_tokenizer()
    ends = llm.loaded.engine.vocabulary.eos_token_ids
    allowed = [i for i in range(tokenizer.vocab_size) if b"b" not in tokenizer.pieces[i]]
    [answer] = ask(llm, params, [None], allowed_token_ids=sorted(set(allowed) - ends))
    assert (answer.text, answer.finish_reason) == ("a", "stop")
    assert llm.loaded.engine.scheduler.num_running == 0


def test_a_parser_at_its_limit_ends_its_request_with_the_reason(llm, monkeypatch):
    from octavo.structured import compiler

    monkeypatch.setattr(compiler, "MAX_LEXER_STATES", 60)
    params = structured(regex="((a|b)*a(a|b){14}c)+", max_tokens=900)
    params = dataclasses.replace(params, seed=1, ignore_eos=True)  # on until something gives
    fine = structured(choice=["yes"])
    with pytest.raises(
        RequestFailedError, match="cannot go on within structured_outputs"
    ) as caught:
        llm.generate(["Say:", "Say:"], [params, fine])
    assert caught.value.outputs[1].outputs[0].text == "yes"


def test_a_request_has_one_mask(byte_level):
    from drawing_backend import EveryOther

    with pytest.raises(UsageError, match="a token_mask of its own"):
        byte_level.loaded.engine.add_request(
            "0", "x", structured(choice=["a"]), token_mask=EveryOther()
        )


def test_answers_that_must_be_empty_are(llm):
    only = [llm.get_tokenizer().token_to_id("c")]
    params = dataclasses.replace(structured(regex="a?"), allowed_token_ids=only, n=3)
    for output in (llm.generate("Say:", params)[0], [*llm.stream("Say:", params)][-1]):
        assert output.finished
        assert [answer.finish_reason for answer in output.outputs] == ["stop"] * 3
        assert [answer.text for answer in output.outputs] == [""] * 3
    llm.loaded.engine.scheduler.check_integrity()
