"""What the scripts of all clients share: where the server is, what is asked, how checks are run.

Standard library only: every client has an environment of its own, and this must run in each.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
import traceback
import urllib.request

ROOT_URL = os.environ["OCTAVO_CLIENT_URL"]
"""Of the server, without a slash at its end and without /v1."""
BASE_URL = f"{ROOT_URL}/v1"
API_KEY = os.environ["OCTAVO_CLIENT_API_KEY"]
MODEL = os.environ["OCTAVO_CLIENT_MODEL"]
MAX_CONCURRENT_REQUESTS = int(os.environ["OCTAVO_CLIENT_MAX_CONCURRENT_REQUESTS"])

QUESTION = "What is the capital of France?"
PROMPT = "The capital of France is"
# Tokens of QUESTION with tools_template.jinja around it; test_client_inputs.py counts again.
NUM_CHAT_TOKENS = 16

UNITS = ("celsius", "fahrenheit")
CITIES = ("Paris", "London", "Rome")
WEATHER_PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": list(CITIES)},
        "unit": {"type": "string", "enum": list(UNITS)},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
CLOCK_PARAMETERS = {
    "type": "object",
    "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}},
    "required": ["zone"],
    "additionalProperties": False,
}
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": WEATHER_PARAMETERS,
    },
}
CLOCK_TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time of day.",
        "parameters": CLOCK_PARAMETERS,
    },
}


def ask(content=QUESTION):
    """A conversation of one message."""
    return [{"role": "user", "content": content}]


def equal(found, expected, what):
    """Fail with both values; a bare assert outside pytest shows neither."""
    assert found == expected, f"{what}: found {found!r}, expected {expected!r}"


def raised_by(call, kind):
    """The error of this class, or of one of these, that the call raises; fail if it does not."""
    try:
        found = call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind}, and it was taken: {found!r}")


def is_weather(arguments):
    """Fail unless the arguments, JSON or parsed, are some that get_weather may be called with."""
    values = json.loads(arguments) if isinstance(arguments, str) else arguments
    equal(sorted(values), ["city", "unit"], "names of get_weather's arguments")
    assert values["city"] in CITIES, values
    assert values["unit"] in UNITS, values
    return values


def is_idle():
    """Whether the server computes nothing, by /load."""
    return get_json("/load")["server_load"] == 0


def get_json(path):
    """What the server says at ``path``."""
    request = urllib.request.Request(  # noqa: S310 - the server under test
        ROOT_URL + path, headers={"Authorization": f"Bearer {API_KEY}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def until(condition, what, limit_s=30):
    """Wait until it is so; fail if it never is."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, f"after {limit_s} s still not so: {what}"
        time.sleep(0.02)


def run_checks(names):
    """Run every function of a script called check_…, and exit with 1 if one fails.

    Arguments of the command line choose: those checks whose names hold one of them.
    """
    wanted = sys.argv[1:]
    checks = {
        name: check
        for name, check in names.items()
        if name.startswith("check_") and (not wanted or any(word in name for word in wanted))
    }
    assert checks, "no check is called so"
    failed = [name for name, check in checks.items() if not _passes(name, check)]
    print(f"{len(checks) - len(failed)} of {len(checks)} checks passed")
    if failed:
        sys.exit("failed: " + ", ".join(failed))


def _passes(name, check):
    start_s = time.monotonic()
    try:
        if inspect.iscoroutinefunction(check):
            asyncio.run(check())
        else:
            check()
    except Exception:
        print(f"FAILED {name}")
        traceback.print_exc(file=sys.stdout)
        return False
    print(f"passed {name} ({time.monotonic() - start_s:.1f} s)")
    return True
