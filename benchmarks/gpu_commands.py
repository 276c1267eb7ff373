"""What a user types first on a new machine: the devices, who serves each op, a few tokens."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from gpu_settings import TINY_QWEN3, Row, Settings
from shape_folder import QWEN3_0_6B

TABLE = "commands"
LIMIT_S = 150.0
SHOWN = 400  # characters of what a command said that are told
GENERATE = ("--load-format", "dummy", "--ignore-eos", "--max-tokens", "32", "--max-model-len")


def run(settings: Settings) -> Iterator[Row]:
    """`octavo devices`, `octavo ops` and `octavo generate`, each in a process of its own."""
    chosen = ("--device", settings.device, "--backend", settings.backend)
    yield _row("octavo devices", ("devices",), _as_it_is)
    yield _row("octavo ops", ("ops", *chosen, "--json"), _implementations)
    with tempfile.TemporaryDirectory() as folder:
        _make_model(Path(folder), settings)
        arguments = ("generate", folder, "one two", *chosen, *GENERATE, "512")
        yield _row("octavo generate, Qwen3-0.6B's shape", arguments, _as_it_is)


def _make_model(folder: Path, settings: Settings) -> None:
    """A configuration for random weights, and a tokenizer that knows three words."""
    config = QWEN3_0_6B | (TINY_QWEN3 if settings.rehearse else {})
    (folder / "config.json").write_text(json.dumps(config))
    words = {"<unk>": 0, "one": 1, "two": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106 - a word
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def _row(name: str, arguments: tuple[str, ...], tell: Callable[[str], str]) -> Row:
    command = [sys.executable, "-m", "octavo", *arguments]
    start = time.perf_counter()
    row: Row = {"table": TABLE, "command": name}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return row | {"said": f"nothing within {LIMIT_S:.0f} s", "is_wrong": True}
    row["seconds"] = time.perf_counter() - start
    if result.returncode:
        said = f"status {result.returncode}: {' '.join(result.stderr.split())[-SHOWN:]}"
        return row | {"said": said, "is_wrong": True}
    said = tell(result.stdout) or " ".join(result.stderr.split())
    return row | {"said": said[:SHOWN]}


def _as_it_is(output: str) -> str:
    return " ".join(output.split())


def _implementations(output: str) -> str:
    """How many ops each implementation serves, and who serves attention."""
    ops = json.loads(output)["ops"]
    attention = next(each for each in ops if each["op"] == "paged_attention")
    counts = Counter(each["implementation"].partition(".")[0] for each in ops)
    each = ", ".join(f"{count} by {name}" for name, count in counts.items())
    return f"paged_attention by {attention['implementation']}; {each}"
