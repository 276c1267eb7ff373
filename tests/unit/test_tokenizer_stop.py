"""Stop strings, against a search written character by character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import UsageError
from octavo.tokenizer import StopChecker

alphabet = st.text(alphabet="ab", max_size=30)
stop_strings = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=4)


def expected(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    """The text up to the first completed stop string; of those ending together, the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


def run(pieces: list[str], stops: list[str], include: bool = False) -> tuple[str, str | None]:
    checker = StopChecker(stops, include)
    shown = "".join(checker.push(piece)[0] for piece in pieces)
    return shown + checker.flush(), checker.stopped


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(text[position : position + size])
        position += size
    return [*pieces, text[position:]]


@given(alphabet, stop_strings, st.booleans(), st.lists(st.integers(0, 4), max_size=20))
def test_finds_what_a_plain_search_finds_however_the_text_is_cut(text, stops, include, sizes):
    assert run(cut(text, sizes), stops, include) == expected(text, stops, include)


@given(alphabet, stop_strings)
def test_holds_back_no_more_than_may_begin_a_stop_string(text, stops):
    checker = StopChecker(stops)
    shown = ""
    for position, character in enumerate(text, 1):
        new, stopped = checker.push(character)
        shown += new
        if stopped:
            return
        held = text[len(shown) : position]
        assert text[:position] == shown + held
        beginnings = [stop[:size] for stop in stops for size in range(len(stop))]
        longest = max((len(b) for b in beginnings if text[:position].endswith(b)), default=0)
        assert len(held) == longest


def test_a_stop_string_that_spans_tokens():
    checker = StopChecker(["</answer>"])
    assert checker.push("42 </ans") == ("42 ", None)
    assert checker.push("wer") == ("", None)
    assert checker.push("> and more") == ("", "</answer>")
    assert checker.push("never shown") == ("", "</answer>")
    assert checker.flush() == ""


def test_a_beginning_that_leads_nowhere_is_shown_after_all():
    checker = StopChecker(["</answer>"])
    assert checker.push("1 </an") == ("1 ", None)
    assert checker.push("gle>") == ("</angle>", None)


def test_a_beginning_at_the_end_is_flushed():
    checker = StopChecker(["STOP"])
    assert checker.push("x ST") == ("x ", None)
    assert checker.flush() == "ST"
    assert checker.stopped is None


def test_a_stop_string_may_be_part_of_the_output():
    assert run(["a\n", "\nb"], ["\n\n"], include=True) == ("a\n\n", "\n\n")


def test_the_one_that_began_first_wins_among_those_ending_together():
    assert run(["xabc"], ["c", "abc", "bc"]) == ("x", "abc")


def test_generation_does_not_run_past_a_completed_one_to_wait_for_another():
    assert run(["abcd"], ["abcd", "bc"]) == ("a", "bc")


def test_without_stop_strings_text_passes():
    assert StopChecker().push("anything") == ("anything", None)
    assert StopChecker("ab").push("xab") == ("x", "ab")  # one by itself


@pytest.mark.parametrize("stops", [[""], ["a", ""], [5]])
def test_unusable_stop_strings_are_refused(stops):
    with pytest.raises(UsageError, match="non-empty text"):
        StopChecker(stops)


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_any_characters_at_all(text, stops):
    assert run(list(text), stops) == expected(text, stops, include=False)
