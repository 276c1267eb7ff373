"""Several processes whose devices make one group, joined through ``jax.distributed``."""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import jax
from jax._src import distributed

from octavo.api import BackendError, UsageError

__all__ = ["Processes", "join_processes"]

_LOG = logging.getLogger(__name__)
_START_S = 290  # that a process waits for the first one: JAX's own limit is 300
_PIECE_BYTES = 1 << 20  # of a message: the coordinator takes no more than 4 MiB at once
_WAIT_MS = 60_000
_END_OF_PORTS = 1 << 16
_KEPT_PIECES = 64  # that a process may be behind: each step waits for all of them anyway


def join_processes(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> Processes:
    """Meet the other processes; what is None JAX finds out, where it knows the cluster.

    Waits for all of them. Has to come before anything else of JAX that looks at devices. Raises
    UsageError for an address that is none, BackendError where they do not meet.
    """
    address = _checked(coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS"))
    try:
        if not jax.distributed.is_initialized():
            if process_id and address is not None:
                _await_first(*address)
            jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise BackendError(
            f"The processes of the group did not meet: {str(error).rstrip('.')}. Each needs "
            "coordinator_address (HOST:PORT of the first one), num_processes and process_id, or "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        ) from error
    return Processes(jax.process_count(), jax.process_index())


def _checked(address: str | None) -> tuple[str, int] | None:
    """Host and port of the first process, or None where JAX is to find it out."""
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < _END_OF_PORTS:
        raise UsageError(
            f"The coordinator's address is {address!r}; expected HOST:PORT of the first process, "
            "for example 10.0.0.1:8476 (coordinator_address or JAX_COORDINATOR_ADDRESS)."
        )
    return host.strip("[]"), int(port)


def _await_first(host: str, port: int) -> None:
    """Until somebody answers there: where nobody does, JAX ends the process without an error."""
    started_s, is_told = time.monotonic(), False
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError as error:
            if time.monotonic() - started_s >= _START_S:
                raise BackendError(
                    f"The first process of the group does not answer at {host}:{port} ({error}): "
                    "start it there, with JAX_PROCESS_ID=0, within five minutes of the others."
                ) from error
            if not is_told:
                _LOG.warning(
                    "Waiting for the first process of the group, at %s:%s (%s).", host, port, error
                )
            is_told = True
            time.sleep(0.5)
        else:
            return


@dataclass
class Processes:
    """How many there are, which one this is, and the messages of the first one to the others."""

    num_processes: int
    process_index: int
    _num_pieces: int = field(default=0, init=False)

    def send(self, message: bytes) -> None:
        """To all others, by way of the coordinator; does not wait for them."""
        for start in range(0, max(1, len(message)), _PIECE_BYTES):
            is_last = start + _PIECE_BYTES >= len(message)
            piece = bytes([is_last]) + message[start : start + _PIECE_BYTES]
            self._client.key_value_set_bytes(_key(self._num_pieces), piece)
            if self._num_pieces >= _KEPT_PIECES:
                self._client.key_value_delete(_key(self._num_pieces - _KEPT_PIECES))
            self._num_pieces += 1

    def receive(self) -> bytes:
        """The next message; waits for it as long as the coordinator is there."""
        pieces = []
        is_last = False
        while not is_last:
            piece = self._next_piece()
            is_last = bool(piece[0])
            pieces.append(piece[1:])
        return b"".join(pieces)

    def _next_piece(self) -> bytes:
        while True:
            try:
                piece: bytes = self._client.blocking_key_value_get_bytes(
                    _key(self._num_pieces), _WAIT_MS
                )
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise BackendError(f"The first process is gone: {error}.") from error
            else:
                self._num_pieces += 1
                return piece

    @property
    def _client(self) -> Any:
        """The coordinator's key-value store, which JAX itself meets by; it has no public name."""
        return distributed.global_state.client


def _key(piece: int) -> str:
    return f"octavo/{piece}"
