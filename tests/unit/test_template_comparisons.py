"""Comparisons in chat templates end, whatever is compared."""

from __future__ import annotations

import pytest
from jinja2.exceptions import SecurityError

from octavo.tokenizer import template_limits
from octavo.tokenizer.template_sandbox import compile_template

_TWO_DEEP_LISTS = (
    "{% set a = namespace(x=[]) %}{% set b = namespace(x=[]) %}{% for i in range(60) %}"
    "{% set a.x = [a.x, a.x] %}{% set b.x = [b.x, b.x] %}{% endfor %}"
)


@pytest.mark.parametrize(
    "compared",
    [
        "{{ a.x == b.x }}",
        "{{ a.x in [b.x] }}",
        "{{ a.x is eq(b.x) }}",
        "{{ a.x < b.x }}",
        "{{ [a.x] | select('eq', b.x) | list | length }}",
    ],
)
def test_lists_that_hold_themselves_many_times_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, compared: str
) -> None:
    monkeypatch.setattr(template_limits, "MAX_BUILT", 10_000)  # sooner
    with pytest.raises(SecurityError, match="more than"):
        compile_template(_TWO_DEEP_LISTS + compared)()


def test_looking_through_a_list_ends_with_the_processor_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(template_limits, "MAX_CPU_S", 0.05)
    search = (
        "{% set members = range(99999) | list %}"
        "{% for i in range(9000) %}{% if -1 in members %}{% endif %}{% endfor %}"
    )
    with pytest.raises(SecurityError, match=r"more than 0\.05 s"):
        compile_template(search)()


def test_ordinary_comparisons_are_as_they_were() -> None:
    template = (
        "{{ 1 < 2 < 3 }} {{ 'a' in 'cat' }} {{ [1] == [1] }} {{ 2 is eq 2 }} {{ 1 is in [2] }}"
    )
    assert compile_template(template)() == "True True True True False"
