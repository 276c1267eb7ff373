"""OpenAI's Python client: models, errors and their classes, time limits, retries, headers."""

from __future__ import annotations

import contextlib
import threading

import openai
from client_checks import (
    API_KEY,
    BASE_URL,
    MAX_CONCURRENT_REQUESTS,
    MODEL,
    ask,
    equal,
    is_idle,
    raised_by,
    run_checks,
    until,
)
from openai import OpenAI

client = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=120)


def chat(using=client, **options):
    options = {"model": MODEL, "messages": ask(), "max_tokens": 2, **options}
    return using.chat.completions.create(**options)


def is_refused(call, kind, **expected):
    """Fail unless the call raises an error of this class whose attributes are these."""
    error = raised_by(call, openai.APIStatusError)
    equal(type(error), kind, f"class of {error}")
    for name, value in expected.items():
        equal(getattr(error, name), value, f"{name} of {error}")
    assert len(error.body["message"]) > 10, error.body
    return error


def check_models():
    models = list(client.models.list())
    equal([model.id for model in models], [MODEL], "models")
    equal(client.models.retrieve(MODEL).id, MODEL, "one model")
    equal(models[0].object, "model", "object")
    retrieve = client.models.retrieve
    is_refused(lambda: retrieve("unknown"), openai.NotFoundError, code="model_not_found")


def check_bad_values():
    for name, value in (
        ("temperature", 3),
        ("top_p", 0),
        ("n", 0),
        ("max_tokens", -1),
        ("frequency_penalty", 5),
        ("stop", [""]),
        ("logit_bias", {"x": 1}),
        ("messages", []),
        ("temperature", "hot"),
    ):
        is_refused(
            lambda options={name: value}: chat(**options),
            openai.BadRequestError,
            param=name,
            type="invalid_request_error",
        )


def check_unknown_parameter():
    is_refused(
        lambda: chat(extra_body={"temprature": 1}),
        openai.BadRequestError,
        param="temprature",
        code="unknown_parameter",
    )


def check_unknown_model_and_path():
    kind = openai.NotFoundError
    is_refused(lambda: chat(model="unknown"), kind, code="model_not_found", param="model")
    is_refused(lambda: client.embeddings.create(model=MODEL, input="text"), kind)


def check_bad_schema():
    schema = {"name": "bad", "strict": True, "schema": {"type": "no such type"}}
    response_format = {"type": "json_schema", "json_schema": schema}
    call = lambda: chat(response_format=response_format)  # noqa: E731
    is_refused(call, openai.BadRequestError, param="response_format")


def check_too_long():
    long = ask("word " * 5000)
    kind = openai.BadRequestError
    is_refused(lambda: chat(messages=long), kind, code="context_length_exceeded")


def check_wrong_key():
    for key in ("wrong", API_KEY[:-1], API_KEY + "x"):
        stranger = OpenAI(base_url=BASE_URL, api_key=key, max_retries=0)
        is_refused(lambda using=stranger: chat(using), openai.AuthenticationError)


@contextlib.contextmanager
def full_server():
    """As many streams as the server takes, all under way."""
    options = {"max_tokens": 400, "stream": True, "extra_body": {"ignore_eos": True}}
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONCURRENT_REQUESTS):
            next(iter(stack.enter_context(chat(**options))))
        yield stack
    until(is_idle, "the server is idle")


def check_rate_limit():
    with full_server():
        error = is_refused(chat, openai.RateLimitError, type="rate_limit_error")
        assert int(error.response.headers["retry-after"]) >= 1, error.response.headers


def check_retries():
    with full_server() as stack:
        closing = threading.Timer(0.3, stack.close)
        closing.start()
        answer = chat(client.with_options(max_retries=8))
        closing.join()
    equal(answer.usage.completion_tokens, 2, "completion_tokens of the retried request")


def check_timeout_ends_the_request():
    options = {"max_tokens": 400, "extra_body": {"ignore_eos": True}}
    hurried = client.with_options(timeout=0.5)
    raised_by(lambda: chat(hurried, **options), openai.APITimeoutError)
    until(is_idle, "the request of the client that went away has ended")


def check_leaving_a_stream_ends_the_request():
    stream = chat(stream=True, max_tokens=400, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert not is_idle()
    stream.close()
    until(is_idle, "the request has ended")


def check_raw_response():
    create = client.chat.completions.with_raw_response.create
    answer = create(model=MODEL, messages=ask(), max_tokens=2)
    equal(answer.status_code, 200, "status")
    assert answer.headers["content-type"].startswith("application/json"), answer.headers
    assert answer.headers["x-request-id"], answer.headers
    equal(answer.parse().usage.completion_tokens, 2, "completion_tokens")
    other = create(model=MODEL, messages=ask(), max_tokens=2)
    assert other.headers["x-request-id"] != answer.headers["x-request-id"], "ids repeat"


if __name__ == "__main__":
    run_checks(globals())
