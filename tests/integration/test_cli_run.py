"""The commands that run a model, as separate processes, on the real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

OCTAVO = [sys.executable, "-m", "octavo.cli.main"]


def octavo(*arguments, stdin="", check=True):
    result = subprocess.run(
        [*OCTAVO, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


@pytest.fixture
def model(smollm2_path):
    return str(smollm2_path)


def test_chat_answers_once(model):
    result = octavo(
        *("chat", model, "--device", "cpu", "--temperature", "0"),
        *("--message", "What is the capital of France?"),
    )
    assert result.stdout == "The capital of France is Paris.\n"
    assert result.stderr.startswith(
        ("cpu:0 through native", "cpu:0 through numpy")
    )  # what was chosen, in one line
    assert octavo("chat", model, "--quiet", "--message", "Hi", "-m", "1").stderr == ""


def test_chat_reads_a_conversation_from_a_pipe(model):
    lines = "My name is Ada.\n/history\n/nonsense\n/clear\n/history\n/quit\n"
    result = octavo("chat", model, "--temperature", "0", "--max-tokens", "4", stdin=lines)
    assert "user: My name is Ada." in result.stdout
    assert "/nonsense is not a command" in result.stdout
    assert result.stdout.count("user: My name is Ada.") == 1


def test_generate_prints_json_for_several_prompts(model, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("The capital of France is\n\nThe capital of Italy is\n", encoding="utf-8")
    result = octavo(
        *("generate", model, "--file", str(prompts)),
        *("--json", "--temperature", "0", "--max-tokens", "3"),
    )
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["outputs"][0]["text"].split()[0] for record in records] == ["Paris.", "Rome."]
    assert [record["usage"]["completion_tokens"] for record in records] == [3, 3]


def test_generate_reads_standard_input_and_streams(model):
    result = octavo(
        *("generate", model, "--temperature", "0", "--max-tokens", "2"),
        stdin="The capital of France is\n",
    )
    assert result.stdout.startswith(" Paris")


def test_bench_and_plan_write_json(model):
    bench = octavo(
        *("bench", model, "--num-prompts", "2", "--input-len", "8", "--output-len", "4", "--json")
    )
    figures = json.loads(bench.stdout)
    assert (figures["input_tokens"], figures["output_tokens"]) == (16, 8)
    plan = json.loads(octavo("plan", model, "--backend", "numpy", "--json").stdout)[0]
    assert plan["fits"]
    assert plan["num_parameters"] == 134_515_008
    assert plan["cache_bytes_per_token"] == 30 * 2 * 3 * 64 * 4


def test_plan_tells_of_each_device_once_with_the_options_given(model):
    plans = json.loads(octavo("plan", model, "--threads", "1", "--json").stdout)
    devices = [plan["device"] for plan in plans]
    assert len(set(devices)) == len(devices)
    refused = octavo("plan", model, "--threads", "0", check=False)
    assert "threads=0 must be a whole number" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("chat", "missing.gguf", "--message", "x"), 1, "missing.gguf"),
        (("chat", "MODEL", "--message", " "), 2, "--message is empty"),
        (("chat", "MODEL", "--message", "x", "--temperature", "-1"), 2, "temperature"),
        (("chat", "MODEL", "--message", "x", "--tempreature", "1"), 2, "--temperature"),
        (("chat", "MODEL", "--message", "x", "--device", "cuda"), 1, "cuda"),
        (("chat", "MODEL", "--message", "x", "--device", "gpu"), 1, "gpu"),
        (("chat", "MODEL", "--message", "x", "--backend", "nunpy"), 1, "numpy"),
        (("chat", "MODEL", "--message", "x", "--n", "2"), 2, "--n has no place"),
        (("generate", "MODEL"), 2, "standard input was empty"),
        (("generate", "MODEL", "--file", "none.txt"), 2, "none.txt"),
        (("generate", "MODEL", "x", "--file", "none.txt"), 2, "not both"),
        (("bench", "MODEL", "--max-tokens", "3"), 2, "--output-len"),
    ],
)
def test_mistakes_get_one_clear_message_and_no_traceback(model, arguments, code, message):
    arguments = [model if argument == "MODEL" else argument for argument in arguments]
    result = octavo(*arguments, check=False)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_stops_the_answer_and_not_the_program(model):
    process = subprocess.Popen(
        [*OCTAVO, "chat", model, "--temperature", "0", "--quiet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
    )
    process.stdin.write("Write a very long story about the sea.\n")
    process.stdin.flush()
    assert process.stdout.read(1)  # the answer has begun
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    out, err = process.communicate("/history\n/quit\n", timeout=60)
    assert process.returncode == 0, err
    assert "user: Write a very long story" in out
    assert "assistant: " in out
