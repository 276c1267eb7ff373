"""`octavo conform` on the device, in rows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_settings import Row, Settings

TABLE = "conformance"
SPARE_S = 20.0  # to end the run and read what it knows
SHOWN_FAILURES = 20
REHEARSED = ("-k", "ops.rms_norm")


def run(settings: Settings) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "conform.json"
        status = _conform(settings, output)
        if not output.exists():
            yield {"table": TABLE, "section": "none", "why": f"status {status}", "is_wrong": True}
            return
        record = json.loads(output.read_text())
    yield from _sections(record)
    failures = [each for each in record["results"] if each["status"] in ("failed", "blocked")]
    for each in failures[:SHOWN_FAILURES]:
        yield {"table": "what failed in conformance", "case": each["id"], "why": _why(each)}
    if status == 130:
        cut = "interrupted: not every case was run"
        yield {"table": TABLE, "section": "all", "why": cut, "is_wrong": True}


def _conform(settings: Settings, output: Path) -> int:
    """Interrupted shortly before its time is up: it then writes what it knows."""
    command = [sys.executable, "-m", "octavo", "conform", settings.backend]
    command += ["--device", settings.device, "--no-performance", "--output", str(output)]
    command += ["--quick"] if settings.quick else []
    command += REHEARSED if settings.rehearse else []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            return process.wait(max(1.0, settings.left_s - SPARE_S))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            return process.wait()


def _sections(record: dict[str, Any]) -> Iterator[Row]:
    counts: dict[str, dict[str, int]] = {}
    for each in record["results"]:
        section = counts.setdefault(each["check"].partition(".")[0], {})
        section[each["status"]] = section.get(each["status"], 0) + 1
    for section, found in counts.items():
        bad = found.get("failed", 0) + found.get("blocked", 0)
        yield {"table": TABLE, "section": section, **found, "is_wrong": bad > 0}


def _why(result: dict[str, Any]) -> str:
    lines = str(result.get("message", "")).strip().splitlines()
    return lines[0][:200] if lines else result["status"]
