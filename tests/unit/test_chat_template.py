"""Chat templates: rendered as transformers does, with errors and limits of their own."""

from __future__ import annotations

import copy
import dataclasses

import jinja2
import pytest
from chats import CHATS, TOOLS
from transformers.utils.chat_template_utils import render_jinja_template

from octavo.errors import UsageError
from octavo.tokenizer import Tokenizer, encode_chat, render_chat, template_limits
from octavo.tokenizer.fast import FastTokenizer
from tiny_tokenizers import CHAT_TEMPLATE, train_byte_level

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
ASK = [{"role": "user", "content": "hi"}]


def tokenizer(template=None) -> Tokenizer:
    backend = train_byte_level()
    return FastTokenizer(backend, special_tokens=TOKENS, chat_template=template)


TOKENIZER = tokenizer()


def render(template: str, messages=ASK, **options) -> str:
    return render_chat(TOKENIZER, messages, chat_template=template, **options)


def render_by_transformers(template: str, messages=ASK, **options) -> str:
    options = {"add_generation_prompt": True, **TOKENS, **options}
    (prompt,), _ = render_jinja_template([messages], chat_template=template, **options)
    return prompt


TEMPLATES = {
    "chatml": CHAT_TEMPLATE,
    "block trimming": (
        "{{ bos_token }}\n  {% for m in messages %}  \n  {% if m.role %}\n [{{ m['content'] }}]\n"
        "  {%- endif %}\n {% endfor %}\n\t{{ eos_token }}"
    ),
    "loop controls": (
        "{% for m in messages %}{% if loop.index0 == 0 %}{% continue %}{% endif %}"
        "{{ m.role }}{% if not loop.last %},{% else %}{% break %}{% endif %}{% endfor %}"
    ),
    "loop variables": (
        "{% for m in messages %}{{ loop.length }}{{ loop.revindex }}{{ loop.first }}"
        "{{ loop.previtem.role }}{{ loop.nextitem.role }}{{ loop.changed(m.role) }}{% endfor %}"
    ),
    "generators": (
        "{% for r in messages | map(attribute='role') | unique %}{{ loop.length }}{{ r }}"
        "{% else %}none{% endfor %}{% for m in messages if m.role == 'user' %}{{ m.content }}"
        "{% endfor %}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
    ),
    "json": (
        "{{ tools | tojson }}|{{ tools | tojson(indent=2) }}"
        "|{{ tools | tojson(ensure_ascii=true) }}"
        "|{{ {'b': 1, 'a': '<é>'} | tojson(sort_keys=true, separators=(',', ':')) }}"
    ),
    "namespaces and macros": (
        "{% set ns = namespace(n=0, seen=[]) %}{% macro item(m, mark='*') %}{{ mark }}{{ m.role }}"
        "{% if caller %}{{ caller() }}{% endif %}{% endmacro %}{% for m in messages %}"
        "{% set ns.n = ns.n + 1 %}{% set ns.seen = ns.seen + [m.role] %}{{ item(m) }}"
        "{% call item(m, mark='-') %}!{% endcall %}{% endfor %}{{ ns.n }}{{ ns.seen }}"
        "{% set block %}a{{ ns.n }}b{% endset %}{{ block | upper }}{{ dict(a=1, **{'b': 2}) }}"
    ),
    "generation tag": (
        "{% for m in messages %}{% generation %}{{ m.content }}\n{% endgeneration %}{% endfor %}"
    ),
    "a variable set in a generation tag": (
        "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}"
    ),
    "undefined": "{{ nothing }}|{{ messages[0].nothing }}|{{ nothing is defined }}",
    "string methods": (
        "{{ 'a-b-c'.split('-') }}{{ ' x '.strip() }}{{ 'abc'[::-1] }}{{ 'a'.ljust(3, '.') }}"
        "{{ '%s-%05.2f' | format('x', 3.14159) }}{{ '{:>4}|{x}'.format(7, x='y') }}"
        "{{ 'x' * 3 ~ 1 ~ none ~ [1] }}{{ 2 ** 10 }}{{ 7 % 3 }}{{ [1] * 2 + [3] }}"
        "{{ 'a' in 'abc' }}"
    ),
    "filters": (
        "{{ ['b', 'a'] | sort | join(', ') }}{{ 'a\nb' | indent(4, true) }}{{ '<b>' | e }}"
        "{{ 'abc' | replace('b', 'xx') }}{{ [1, 2, 3] | sum }}{{ {'a': 1} | items | list }}"
        "{{ 'a b c d' | truncate(5) }}{{ 'hello' | capitalize | center(11) }}"
        "{{ [[1, 2]] | map('first') | list }}"
    ),
    "reasoning": "{{ messages[1].reasoning_content }}{{ messages[1].thinking }}",
    "extra variables": "{{ enable_thinking }}{{ settings.level }}{{ documents }}",
}  # fmt: skip


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_as_transformers(name, chat):
    options = {
        "tools": TOOLS,
        "documents": [{"title": "t", "text": "é"}],
        "enable_thinking": False,
        "settings": {"level": 3},
    }
    template, messages = TEMPLATES[name], CHATS[chat]
    try:
        expected = render_by_transformers(template, messages, **options)
    except Exception:
        with pytest.raises(UsageError):
            render(template, messages, **options)
    else:
        assert render(template, messages, **options) == expected


def test_strftime_now():
    template = "{{ strftime_now('%Y-%m-%d') }}"
    before, ours, after = (
        render_by_transformers(template), render(template), render_by_transformers(template)
    )  # fmt: skip
    assert ours in (before, after)


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_found_under_each_of_its_names(key):
    messages = [*ASK, {"role": "assistant", "content": "a", key: "why"}]
    assert render(TEMPLATES["reasoning"], messages) == "whywhy"


TRIMMING = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}"
READING_PARTS = (
    "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}"
)
PARTS = [{"type": "text", "text": "x"}, {"type": "text", "text": "to be"}]


@pytest.mark.parametrize(
    ("template", "last"),
    [
        (CHAT_TEMPLATE, "to be"),
        (CHAT_TEMPLATE, "to be  "),
        (TRIMMING, "to be"),
        (TRIMMING, "to be  "),
        (READING_PARTS, PARTS),
    ],
)
def test_continuing_the_final_message_as_transformers(template, last):
    messages = [{"role": "user", "content": last}, {"role": "assistant", "content": last}]
    options = {"continue_final_message": True, "add_generation_prompt": False}
    expected = render_by_transformers(template, messages, **options)
    assert render(template, messages, **options) == expected


def test_what_cannot_be_continued_is_refused():
    options = {"continue_final_message": True}
    with pytest.raises(UsageError, match="set add_generation_prompt=False"):
        render(CHAT_TEMPLATE, **options)
    options["add_generation_prompt"] = False
    with pytest.raises(UsageError, match="does not appear in the prompt"):
        render("{{ messages[0].role }}", **options)
    for messages in ([], [{"role": "assistant", "content": None}]):
        with pytest.raises(UsageError, match="text to go on with"):
            render(CHAT_TEMPLATE, messages, **options)


def test_content_in_parts_is_text_to_a_template_that_knows_only_text():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "user", "content": parts}]
    for template in (
        "{{ messages[0].content }}",
        "{{ '>' + messages[0]['content'] }}",
        "{{ messages[0].content | tojson }}",
        "{{ messages[0].content.split(' ')[0] }}",
        "{% if messages[0].content is string %}{{ messages[0].content }}{% endif %}",
    ):
        joined = [{"role": "user", "content": "one\ntwo"}]
        assert render(template, messages) == render(template, joined)


def test_content_in_parts_stays_so_for_a_template_that_reads_it():
    template = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content %}({{ part.text }}){% endfor %}{% endif %}{% endfor %}"
    )
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert render(template, [*ASK, {"role": "user", "content": parts}]) == "hi(one)(two)"


def test_encoding_adds_no_second_bos():
    backend = train_byte_level()
    special = {"bos_token": "<|im_start|>"}
    template = "{{ bos_token }}{{ messages[0].content }}"
    chatty = FastTokenizer(backend, special_tokens=special, chat_template=template)
    ids = encode_chat(chatty, ASK)
    assert ids.count(chatty.bos_token_id) == 1
    assert chatty.decode(ids) == "hi"


def test_the_template_is_chosen_by_name_and_by_need():
    several = tokenizer({"default": "plain", "tool_use": "tools", "rag": "documents"})
    assert render_chat(several, ASK) == "plain"
    assert render_chat(several, ASK, tools=TOOLS) == "tools"
    assert render_chat(several, ASK, tools=TOOLS, chat_template="rag") == "documents"
    assert render_chat(several, ASK, chat_template="{{ bos_token }}!") == "<s>!"
    with pytest.raises(UsageError, match=r"none is the default one.*a, b"):
        render_chat(tokenizer({"a": "x", "b": "y"}), ASK)


def test_no_template_is_an_error_that_says_what_to_do():
    with pytest.raises(UsageError, match=r"no chat template.*chat_template"):
        render_chat(TOKENIZER, ASK)


@dataclasses.dataclass
class NotData:
    text: str = "x"


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ("hi", "got str"),
        ({"role": "user"}, "got dict"),
        (None, "got NoneType"),
        (["hi"], r"messages\[0\] is 'hi'"),
        ([*ASK, {"content": "x"}], r"messages\[1\].*\"role\""),
        ([{"role": 5, "content": "x"}], r"messages\[0\]"),
        ([{"role": "user", "content": 5}], "content of the type int"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "'image_url'; only text"),
        ([{"role": "user", "content": [5]}], "'int'; only text"),
        ([{"role": "user", "content": "x", "extra": NotData()}], "got NotData"),
    ],
)
def test_unusable_messages_are_refused(messages, match):
    with pytest.raises(UsageError, match=match):
        render(CHAT_TEMPLATE, messages)


def test_unusable_tools_are_refused():
    with pytest.raises(UsageError, match=r"tools\[0\] is a function"):
        render(CHAT_TEMPLATE, tools=[lambda: None])


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{% if %}", r"not valid Jinja.*line 1"),
        ("a\n{% for m in messages %}", r"line 2"),
        ("{{ x | no_such_filter }}", "no_such_filter"),
        ("\n\n{{ raise_exception('only two roles') }}", r"\(line 3\): only two roles"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{{ 1 // 0 }}", "zero"),
        ("{{ strftime_now(5) }}", "str"),
        ("{% include 'file' %}", "no loader"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recurses too deeply"),
    ],
)
def test_what_a_template_refuses_is_a_usage_error_with_its_reason(template, match):
    with pytest.raises(UsageError, match=match):
        render(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}{{ ''.__class__ }}{{ ''.__class__.x }}",
        "{{ (messages | attr('__class__')).x }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ messages.append.__globals__ }}",
        "{{ render.__globals__['os'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ dict.__call__.__globals__ }}",
        "{{ raise_exception.__globals__.os }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ messages.clear() }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{% set ns = namespace() %}{% set ns._Namespace__attrs = 1 %}",
        "{{ (lambda: 1)() }}",
        "{{ messages.__setitem__(0, 1) }}",
    ],
)
def test_nothing_leads_out_of_the_sandbox(template):
    messages = copy.deepcopy(ASK)
    with pytest.raises(UsageError):
        render(template, messages)
    assert messages == ASK


GROW = "{{% set ns = namespace(s={first}) %}}{{% for i in range(99) %}}{grow}{{% endfor %}}{use}"
SET_BLOCK = (
    "{% set x %}{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}"
    "{% endset %}"
)
NEST = "{% set ns.s = [ns.s, {'a': ns.s}] %}"


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ range(100000) | list | length }}{% for i in range(100001) %}x{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ [0] * 10**10 }}",
        "{{ 10**(10**10) }}",
        GROW.format(first="9", grow="{% set ns.s = ns.s * ns.s %}", use=""),
        GROW.format(first="'x'", grow="{% set ns.s = ns.s + ns.s %}", use=""),
        GROW.format(first="'x'", grow="{% set ns.s = ns.s ~ ns.s %}", use=""),
        GROW.format(first="'x'", grow="{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}", use=""),
        GROW.format(first="'x'", grow="{% set ns.s = ns.s.replace('x', 'xx') %}", use=""),
        GROW.format(first="'x'", grow="{% set ns.s = ns.s | replace('x', 'xx') %}", use=""),
        GROW.format(first="'x'", grow="{% set ns.s = ns.s | e ~ '&' * 9 ~ ns.s %}", use=""),
        GROW.format(first="'x'", grow=NEST, use="{{ ns.s }}"),
        GROW.format(first="'x'", grow=NEST, use="{{ ns.s | tojson }}"),
        GROW.format(first="'x'", grow=NEST, use="{{ ns.s | upper }}"),
        GROW.format(first="'x'", grow=NEST, use="{{ '%s' % ns.s }}"),
        GROW.format(first="[]", grow="{% set ns.s = ns.s + ['x' * (1000000 + i)] %}", use=""),
        "{% set big = 'x' * 500000 %}{{ big.join(['', '', '', '']) }}",
        "{% set big = 'x' * 500000 %}{{ ['', '', '', ''] | join(big) }}",
        "{% set big = 'x' * 500000 %}{{ range(9) | map('string') | join(big) }}",
        "{% set big = 'x' * 500000 %}{{ '%s%s%s' % (big, big, big) }}",
        "{% set big = 'x' * 500000 %}{{ '{0}{0}{0}'.format(big) }}",
        "{% set big = 'x' * 500000 %}{% for i in range(9) %}{{ big }}{% endfor %}",
        "{{ ('\n' * 500000) | indent(99) }}",
        "{{ ('\t' * 500000).expandtabs(99) }}",
        "{{ 'x'.ljust(10**10) }}",
        "{{ 'x' | center(10**10) }}",
        "{{ '%99999999999d' % 1 }}",
        "{{ ('%99999d' * 1000) % (1,) }}",
        "{{ '%*d' % (9999999999, 1) }}",
        "{{ '{:99999999999}'.format(1) }}",
        "{{ '{:*>99999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 9999999999) }}",
        "{{ [1] | batch(10**10, 0) | list }}",
        "{{ tools | tojson(indent=10**10) }}",
        "{{ lipsum(100000) }}",
        "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}",
        SET_BLOCK,
        "{% macro m(n) %}{% if n %}{{ m(n - 1) ~ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    ],
)
def test_a_template_cannot_eat_memory(template, monkeypatch):
    """With limits lower than the real ones, which take seconds to reach."""
    monkeypatch.setattr(template_limits, "MAX_BUILT", 2**20)
    monkeypatch.setattr(template_limits, "MAX_TOTAL_BUILT", 2**26)
    monkeypatch.setattr(template_limits, "MAX_STEPS", 50_000)
    with pytest.raises(UsageError):
        render(template, tools=TOOLS)


def test_limits_leave_room_for_the_longest_contexts():
    content = "word " * 600_000
    messages = [{"role": "user", "content": content}] * 2
    template = (
        "{% for m in messages %}{% set text = m.content | trim %}{{ bos_token + m.role ~ text }}"
        "{% endfor %}"
    )
    assert render(template, messages) == ("<s>user" + content.strip()) * 2
    many = [{"role": "user", "content": "x"}] * 20_000
    assert render("{% for m in messages %}{{ m.content }}{% endfor %}", many) == "x" * 20_000


def test_the_caller_s_messages_are_not_touched():
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}]}, *ASK]
    before = copy.deepcopy(messages)
    render(CHAT_TEMPLATE, messages, continue_final_message=True, add_generation_prompt=False)
    assert messages == before


def test_one_rendering_leaves_nothing_to_the_next():
    template = "{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}"
    assert [render(template) for _ in range(3)] == ["1", "1", "1"]
    loop = "{% for i in range(90000) %}{% endfor %}"  # a budget shared would end
    assert [render(loop) for _ in range(60)] == [""] * 60


def test_jinja_itself_is_recent_enough_for_its_sandbox():
    assert tuple(map(int, jinja2.__version__.split(".")[:3])) >= (3, 1, 5)
