"""A server in processes of its own: started, watched, measured, and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

import http_client

START_TIMEOUT_S = 900
END_TIMEOUT_S = 60


class ServerProcess:
    """``octavo serve`` with the given arguments, or any other command that takes a port."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        command: Sequence[str] = (sys.executable, "-m", "octavo", "serve"),
        log: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = _free_port()
        self._log = log.open("ab") if log else subprocess.DEVNULL
        self._process = subprocess.Popen(
            [*command, *arguments, "--port", str(self.port)],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **(environment or {})},
        )
        self._root = psutil.Process(self._process.pid)
        start = time.perf_counter()
        try:
            asyncio.run(self._wait_until_ready())
        except BaseException:
            self.close()
            raise
        self.start_s = time.perf_counter() - start

    async def _wait_until_ready(self) -> None:
        deadline = time.perf_counter() + START_TIMEOUT_S
        while time.perf_counter() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with status {self._process.returncode}")
            try:
                answer = await http_client.get(self.port, "/v1/models")
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)
                continue
            if answer.status == 200:
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the server was not ready within {START_TIMEOUT_S} s")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def front_end_cpu_s(self) -> float:
        """Seconds that the process which answers HTTP has computed."""
        return _cpu_s(self._root)

    @property
    def engine_cpu_s(self) -> float:
        """The same of its children; 0 where the engine lives in the first process."""
        return sum(_cpu_s(child) for child in self._root.children(recursive=True))

    @property
    def resident_bytes(self) -> int:
        """Memory of all processes; pages that they share count more than once."""
        family = [self._root, *self._root.children(recursive=True)]
        return sum(process.memory_info().rss for process in family)

    def close(self) -> None:
        """Ask it to end, then make it end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                for child in self._root.children(recursive=True):
                    child.kill()
                self._process.kill()
                self._process.wait()
        if not isinstance(self._log, int):
            self._log.close()


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
