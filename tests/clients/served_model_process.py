"""A real `octavo serve` in a process of its own, as somebody would start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

API_KEY = "sk-for-tests"
MODEL_NAME = "smollm2"
MAX_CONCURRENT_REQUESTS = 8
_READY = re.compile(r"Octavo serves .* at (http://\S+)")
_START_LIMIT_S = 120


class ServerProcess:
    """``url``, without /v1, and ``log``, all its lines so far; a context manager."""

    def __init__(self, model_path, *options):
        self.url = None
        self.log = []
        self._command = [sys.executable, "-m", "octavo", "serve", str(model_path), "--port", "0"]
        self._command += ["--device", "cpu", "--quiet", *options]
        self._process = None
        self._reader = threading.Thread(target=self._read)
        self._is_ready = threading.Event()

    @property
    def client_environment(self):
        """What client_checks.py wants to know, for the environment of a client."""
        return {
            "OCTAVO_CLIENT_URL": self.url,
            "OCTAVO_CLIENT_API_KEY": API_KEY,
            "OCTAVO_CLIENT_MODEL": MODEL_NAME,
            "OCTAVO_CLIENT_MAX_CONCURRENT_REQUESTS": str(MAX_CONCURRENT_REQUESTS),
        }

    def __enter__(self):
        self._process = subprocess.Popen(
            self._command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OCTAVO_API_KEY": ""},
        )
        self._reader.start()
        self._is_ready.wait(_START_LIMIT_S)
        if self.url is None:
            self.__exit__()
            raise AssertionError("octavo serve did not start:\n" + "\n".join(self.log))
        return self

    def __exit__(self, *exception):
        self._process.terminate()
        try:
            status = self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._reader.join()
        self._process.stderr.close()
        # On Windows, terminate() kills, and the status tells that.
        if self.url is not None and exception[:1] == (None,) and os.name != "nt":
            assert status == 0, f"octavo serve ended with {status}:\n" + "\n".join(self.log[-30:])

    def _read(self):
        for line in self._process.stderr:
            self.log.append(line.rstrip())
            found = _READY.search(line)
            if found and self.url is None:
                self.url = found[1]
                self._is_ready.set()
        self._is_ready.set()

    def wait_until_logged(self, pattern, limit_s=10):
        """The first line that has the pattern."""
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            for line in list(self.log):
                if re.search(pattern, line):
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no line like {pattern!r} in:\n" + "\n".join(self.log))


def serve_for_clients(model_path, repo_root, *options):
    """A server with what the scripts of the clients count on."""
    return ServerProcess(
        model_path,
        *("--served-model-name", MODEL_NAME, "--api-key", API_KEY),
        *("--chat-template", str(repo_root / "tests/clients/tools_template.jinja")),
        *("--tool-call-parser", "hermes", "--max-model-len", "2048"),
        *("--max-concurrent-requests", str(MAX_CONCURRENT_REQUESTS)),
        *options,
    )
