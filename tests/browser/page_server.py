"""``octavo serve`` as a process of its own, for the browser to visit."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading

DEADLINE_S = 120


@contextlib.contextmanager
def page_server(*arguments):
    """The address of a server with these arguments; in the end it is dead, and had no fault."""
    process = subprocess.Popen(
        [sys.executable, "-m", "octavo", "serve", *map(str, arguments), "--port", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    log, found = [], queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stderr, log, found))
    reader.start()
    try:
        address = found.get(timeout=DEADLINE_S)
        assert address, "".join(log)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE_S)
        reader.join(DEADLINE_S)
        process.stderr.close()
    assert "Traceback" not in "".join(log), "".join(log)


def _read(lines, log, found):
    for line in lines:
        log.append(line)
        match = re.search(r"Octavo serves .* at (https?://[^\s/]+)", line)
        if match:
            found.put(match[1])
    found.put(None)


def write_plugins_file(folder, latency_s):
    """A plugins.toml whose fake device computes nothing, in steps of ``latency_s``."""
    path = folder / "plugins.toml"
    path.write_text(f"schema = 1\n[options.fake]\ncompute = false\nlatency_s = {latency_s}\n")
    return path
