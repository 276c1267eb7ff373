"""How a server is set up: where it listens, whom it lets in, and how much it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ServerConfig"]

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Options of ``octavo serve`` that are not an engine's."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    """Any of them lets a request in; none: everybody may."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages of these origins may call the server (CORS); "*": all."""
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    root_path: str = ""
    """The prefix that a reverse proxy takes away."""
    management: bool | None = None
    """Whether /sleep, /wake_up and /reset_prefix_cache answer; None: on loopback, or with keys."""

    max_body_bytes: int = 32 * MIB
    max_prompt_tokens: int | None = None
    """Longest prompt that is taken, in tokens; None: what the context holds."""
    max_choices: int = 128
    """Most answers (n, best_of) to one prompt, and most prompts in one request."""
    max_concurrent_requests: int | None = None
    """More than these at once are refused with 429; None: the engine's queue alone decides."""
    request_timeout_s: float | None = None
    """A request that takes longer is ended."""
    shutdown_timeout_s: float = 30.0
    """How long requests may go on after SIGTERM before they are ended."""
    keep_alive_timeout_s: float = 5.0

    log_requests: bool = True
    """One line for each request."""
    enable_page: bool = True
    otlp_endpoint: str | None = None
    """Where spans are sent (OpenTelemetry); None: nowhere."""
    tool_call_parser: str | None = None
    """None: found from the model's chat template; "none": no tool calls."""
    reasoning_parser: str | None = None
    chat_template: str | None = None
    """Jinja source that replaces the model's own."""
    default_chat_template_kwargs: tuple[tuple[str, object], ...] = ()
