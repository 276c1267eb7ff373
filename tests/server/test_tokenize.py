"""/tokenize and /detokenize: the ids that the library and transformers give, and bounds."""

from __future__ import annotations

import asyncio

import pytest
from fake_clients import FakeClient
from tiny_serving import http_client
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from octavo.loading.tokenizer_source import TokenizerSource
from octavo.server.app import create_app
from octavo.server.config import ServerConfig
from octavo.server.protocol.tokenize import MAX_CHARS, MAX_TOKENS
from octavo.server.served_model import ServedModel, ServedModels
from octavo.server.state import Server
from octavo.tokenizer import load_tokenizer
from tiny_tokenizers import TEXTS

pytestmark = pytest.mark.anyio

CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello world <|im_end|> 🙂"},
    {"role": "assistant", "content": "Voix ambiguë"},
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
    }
]
TOOLS_TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}{{ message.role }}: "
    "{{ message.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ greeting }}"
    "{% endif %}"
)


@pytest.fixture(scope="module")
def backend(tiny_folder):
    return Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def oracle(tiny_folder):
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture
def engine(tiny_folder):
    engine = FakeClient(vocab_size=400, max_model_len=64)
    engine.tokenizer = load_tokenizer(TokenizerSource(directory=tiny_folder))
    return engine


@pytest.fixture
async def http(engine, anyio_backend):
    """No engine runs: tokens do not need one."""
    models = [
        ServedModel(names=("tiny",), engine=engine, template_variables={"greeting": "Hi: "}),
        ServedModel(names=("no-tokenizer",), engine=FakeClient()),
    ]
    async with http_client(create_app(Server(ServerConfig(), ServedModels(models)))) as client:
        yield client


async def tokenize(http, **body):
    response = await http.post("/tokenize", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("adds", [None, True, False])
async def test_texts_have_the_ids_of_the_library(http, backend, adds):
    for text in TEXTS:
        answer = await tokenize(http, prompt=text, add_special_tokens=adds)
        expected = backend.encode(text, add_special_tokens=adds is not False).ids
        assert answer == {
            "count": len(expected),
            "max_model_len": 64,
            "tokens": expected,
            "token_strs": None,
        }


async def test_tokens_are_spelled_as_in_the_vocabulary(http, backend):
    for text in TEXTS:
        answer = await tokenize(http, prompt=text, return_token_strs=True, model="tiny")
        assert answer["token_strs"] == backend.encode(text).tokens


async def test_texts_come_back(http, backend):
    for text in TEXTS:
        tokens = backend.encode(text).ids
        response = await http.post("/detokenize", json={"tokens": tokens})
        assert response.json() == {"prompt": backend.decode(tokens, skip_special_tokens=False)}
        assert response.json() == {"prompt": text}


@pytest.mark.parametrize(
    ("options", "template_options"),
    [
        ({}, {"add_generation_prompt": True}),
        ({"add_generation_prompt": False}, {"add_generation_prompt": False}),
        ({"continue_final_message": True}, {"continue_final_message": True}),
        (
            {"continue_final_message": True, "add_generation_prompt": False},
            {"continue_final_message": True},
        ),
        (
            {"chat_template": TOOLS_TEMPLATE, "tools": TOOLS},
            {
                "chat_template": TOOLS_TEMPLATE,
                "tools": TOOLS,
                "add_generation_prompt": True,
                "greeting": "Hi: ",
            },
        ),
        (
            {
                "chat_template": TOOLS_TEMPLATE,
                "chat_template_kwargs": {"greeting": "Ho: "},
                "add_special_tokens": False,
            },
            {
                "chat_template": TOOLS_TEMPLATE,
                "add_generation_prompt": True,
                "greeting": "Ho: ",
            },
        ),
    ],
)
async def test_chats_have_the_ids_of_transformers(http, oracle, options, template_options):
    answer = await tokenize(http, messages=CHAT, **options)
    expected = oracle.apply_chat_template(
        CHAT, tokenize=True, return_dict=False, **template_options
    )
    assert answer["tokens"] == expected
    assert answer["count"] == len(expected)


async def test_a_prompt_of_a_chat_has_as_many_tokens_as_its_completion_says(server_app):
    messages = CHAT[:2]
    async with http_client(server_app) as http:
        answer = await tokenize(http, messages=messages)
        response = await http.post(
            "/v1/chat/completions", json={"messages": messages, "max_tokens": 1}
        )
    assert response.json()["usage"]["prompt_tokens"] == answer["count"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "x", "messages": CHAT}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": ["x"]}, "prompt"),
        ({"prompt": "x" * (MAX_CHARS + 1)}, "prompt"),
        ({"prompt": "x", "tools": TOOLS}, "tools"),
        ({"prompt": "x", "add_generation_prompt": True}, "add_generation_prompt"),
        ({"prompt": "x", "add_special_token": True}, "add_special_token"),
        ({"prompt": "x", "return_token_strs": "yes"}, "return_token_strs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "pirate", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x" * (MAX_CHARS + 1)}]}, "messages"),
        (
            {
                "messages": CHAT,
                "add_generation_prompt": True,
                "continue_final_message": True,
            },
            "messages",
        ),
        ({"messages": CHAT, "chat_template": "{{ 1 / 0 }}"}, "chat_template"),
        ({"messages": CHAT, "chat_template": "{% for %}"}, "chat_template"),
        ({"prompt": "x", "model": "no-tokenizer"}, None),
    ],
)
async def test_what_cannot_be_tokenized_is_named(http, body, param):
    response = await http.post("/tokenize", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert len(response.text) < 1000


@pytest.mark.parametrize(
    ("tokens", "param"),
    [
        ([1, 2, -1], "tokens[2]"),
        ([1, 10**6], "tokens[1]"),
        ([2**63], "tokens[0]"),
        ([1.5], "tokens[0]"),
        (["1"], "tokens[0]"),
        ([True], "tokens[0]"),
        ([[1]], "tokens[0]"),
        ("12", "tokens"),
        (None, "tokens"),
        ([1] * (MAX_TOKENS + 1), "tokens"),
    ],
)
async def test_what_cannot_be_detokenized_is_named(http, tokens, param):
    response = await http.post("/detokenize", json={"tokens": tokens})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert len(response.text) < 1000


async def test_ids_up_to_the_models_last_are_known(http, engine):
    """The embedding has more rows than the vocabulary has tokens; those decode to nothing."""
    last = max(engine.info.vocab_size, engine.tokenizer.vocab_size) - 1
    assert (await http.post("/detokenize", json={"tokens": [last]})).status_code == 200
    response = await http.post("/detokenize", json={"tokens": [last + 1]})
    assert str(last + 1) in response.json()["error"]["message"]
    assert (await http.post("/detokenize", json={"tokens": []})).json() == {"prompt": ""}


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_an_unknown_model_is_not_found(http, path):
    body = {"model": "nobody", **({"prompt": "x"} if path == "/tokenize" else {"tokens": [1]})}
    response = await http.post(path, json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_others_are_served_while_a_long_text_is_tokenized(http, backend):
    text = "Zwölf Boxkämpfer jagen Viktor. " * 4_000
    long = asyncio.create_task(tokenize(http, prompt=text))
    await asyncio.sleep(0.001)
    num_answers = 0
    while not long.done():
        assert (await http.get("/health")).status_code == 200
        num_answers += 1
        await asyncio.sleep(0)  # a call within this event loop may not wait for anything
    answer = await long
    assert num_answers > 1
    assert answer["count"] == len(backend.encode(text).ids)
    back = await http.post("/detokenize", json={"tokens": answer["tokens"][:MAX_TOKENS]})
    assert text.startswith(back.json()["prompt"])
