"""How a server is set up: where it listens, whom it lets in, and how much it takes."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from octavo.errors import UsageError

__all__ = ["ServerConfig"]

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Options of ``octavo serve`` that are neither an engine's nor a model's."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: any that is free."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Any of them lets a request in; none: everybody may."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages of these origins may call the server (CORS); "*": all."""
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    """None: the certificate's file holds the key as well."""
    root_path: str = ""
    """The prefix that a reverse proxy takes away."""
    management: bool | None = None
    """Whether /sleep, /wake_up and /reset_prefix_cache are there; None: if only this
    machine can call, or only with a key."""

    max_body_bytes: int = 32 * MIB
    max_prompt_tokens: int | None = None
    """Longest prompt that is taken, in tokens; None: what the context holds."""
    max_choices: int = 128
    """Most answers (n, best_of) that one request may ask for, all its prompts together."""
    max_concurrent_requests: int | None = None
    """More than these at once are refused with 429; None: the engine's queue alone decides."""
    body_timeout_s: float = 60.0
    """How long a request's head and body may each take to arrive."""
    request_timeout_s: float | None = None
    """A request that takes longer is ended."""
    shutdown_timeout_s: float = 30.0
    """How long requests may go on after SIGTERM before they are ended."""
    keep_alive_timeout_s: float = 5.0
    """How long a connection without a request is kept."""

    log_requests: bool = True
    """One line for each request."""
    enable_page: bool = True
    otlp_endpoint: str | None = None
    """Where spans are sent (OpenTelemetry); None: nowhere."""

    def __post_init__(self) -> None:
        """Raise UsageError at the first value that cannot be used."""
        if not self.host:
            raise UsageError("host='' is no address: use 127.0.0.1, 0.0.0.0, ::1 or a name.")
        for name, (low, high) in _RANGES.items():
            _check_range(name, getattr(self, name), low, high)
        if any(not key for key in self.api_keys):
            raise UsageError("An API key is empty: leave it away, or give one that is not.")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise UsageError(
                f"root_path={self.root_path!r} must begin with a slash and not end with one."
            )
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise UsageError("There is a TLS key (ssl_keyfile), but no certificate (ssl_certfile).")
        for origin in self.allowed_origins:
            _check_origin(origin)
        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith(
            ("http://", "https://")
        ):
            raise UsageError(
                f"otlp_endpoint={self.otlp_endpoint!r} must be a URL, such as "
                "'http://127.0.0.1:4318'."
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def has_management(self) -> bool:
        """Whether /sleep, /wake_up and /reset_prefix_cache are there."""
        if self.management is not None:
            return self.management
        return self.is_loopback or bool(self.api_keys)


_INFINITE = float("inf")
_RANGES: Mapping[str, tuple[float, float]] = {
    "port": (0, 65535),
    "max_body_bytes": (1, _INFINITE),
    "max_prompt_tokens": (1, _INFINITE),
    "max_choices": (1, _INFINITE),
    "max_concurrent_requests": (1, _INFINITE),
    "body_timeout_s": (0.01, _INFINITE),
    "request_timeout_s": (0.01, _INFINITE),
    "shutdown_timeout_s": (0, _INFINITE),
    "keep_alive_timeout_s": (0.01, _INFINITE),
}


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is None or low <= value <= high:
        return
    wanted = f"at least {low:g}" if high == _INFINITE else f"between {low:g} and {high:g}"
    raise UsageError(f"{name}={value!r} must be {wanted}.")


def _check_origin(origin: str) -> None:
    scheme, separator, host = origin.partition("://")
    if origin != "*" and not (scheme and separator and host and "/" not in host):
        raise UsageError(
            f"{origin!r} is no origin: expected '*', or scheme, host and port without a path, "
            "such as 'https://chat.example.com'."
        )
