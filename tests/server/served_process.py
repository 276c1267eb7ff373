"""``octavo serve`` as a process of its own, on a free port, with all that it starts."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import psutil

DEADLINE_S = 60
ON_FAKE = ("--device", "fake", "--load-format", "dummy", "--kv-cache-memory-bytes", "33554432")


def plugins_file(folder, **options):
    """A plugins.toml that sets options of the fake device, such as ``latency_s=0.05``."""
    options = {"compute": False, **options}
    lines = (f"{name} = {str(value).lower()}" for name, value in options.items())
    path = folder / "plugins.toml"
    path.write_text("schema = 1\n[options.fake]\n" + "\n".join(lines) + "\n")
    return path


def octavo_command(*arguments):
    return [sys.executable, "-m", "octavo", *map(str, arguments)]


class ServedProcess:
    """A server; used as a context, it is waited for until it listens, and dead in the end."""

    def __init__(self, *arguments, env=None, waits=True):
        self._command = octavo_command("serve", *arguments, "--port", 0)
        self._env = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        self._waits = waits
        self.lines = []
        self.children = []

    def __enter__(self):
        self.process = subprocess.Popen(
            self._command,
            env=self._env,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a terminal's process group: Ctrl-C reaches all of it
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if self._waits:
            self.wait_for_line(r"Octavo serves ")
            self.base_url = re.search(r"https?://\S+?:\d+", self.log)[0]
            self.children = psutil.Process(self.process.pid).children(recursive=True)
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        self.process.stderr.close()

    @property
    def log(self):
        return "".join(self.lines)

    def client(self, **options):
        return httpx.Client(base_url=self.base_url, timeout=DEADLINE_S, **options)

    def wait_for_line(self, pattern):
        end_s = time.monotonic() + DEADLINE_S
        while not re.search(pattern, self.log):
            assert self.process.poll() is None, f"it ended: {self.log}"
            assert time.monotonic() < end_s, f"no line with {pattern!r}: {self.log}"
            time.sleep(0.01)

    def send(self, number):
        """A signal to the server alone."""
        self.process.send_signal(number)

    def press_ctrl_c(self):
        """A signal to the server and to all that it has started."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ends_with(self, code):
        """Wait for the end; nothing of it is left, and it complained of nothing."""
        assert self.process.wait(DEADLINE_S) == code, self.log
        self._reader.join(DEADLINE_S)
        _, alive = psutil.wait_procs(self.children, timeout=5)
        assert alive == []
        assert "Traceback" not in self.log
        assert "Exception" not in self.log

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
