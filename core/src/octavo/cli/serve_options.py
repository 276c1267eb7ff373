"""The flags of ``octavo serve`` that other commands do not have; the config file has the same."""

from __future__ import annotations

from typing import Any

from octavo.cli.options import Option

__all__ = ["MODEL_OPTIONS", "SERVER_OPTIONS"]


def _model(parameter: str, kind: Any, text: str, *flags: str) -> Option:
    return Option(parameter, kind, text, "Model", flags)


def _server(parameter: str, kind: Any, text: str, *flags: str) -> Option:
    return Option(parameter, kind, text, "Server", flags)


def _limit(parameter: str, kind: Any, text: str, *flags: str) -> Option:
    return Option(parameter, kind, text, "Limits", flags)


MODEL_OPTIONS = (
    _model(
        "served_model_name",
        list[str],
        "What requests call the model; repeatable. Answers use the first. [file or folder name]",
    ),
    _model(
        "tool_call_parser",
        str,
        "Reads tool calls: hermes, llama3_json, mistral, …, or none. [from the chat template]",
    ),
    _model(
        "reasoning_parser",
        str,
        "Reads reasoning: think, …, or none. [from the chat template]",
    ),
    _model("engine_placement", str, "Give the engine a process of its own, or a thread. [process]"),
    _model("chat_template", str, "A Jinja file in place of the model's own chat template."),
    _model(
        "chat_template_kwargs",
        str,
        "JSON object of variables for the chat template, unless a request sets them.",
    ),
)

SERVER_OPTIONS = (
    _server("host", str, "The address to listen at; 0.0.0.0 is all of them. [127.0.0.1]"),
    _server("port", int, "The port; 0 is any that is free. [8000]", "--port", "-p"),
    _server(
        "api_key",
        list[str],
        "Let in who shows this key; repeatable. Others can see it in `ps`: better a file, or "
        "$OCTAVO_API_KEY.",
    ),
    _server("api_key_file", list[str], "A file with keys, one a line; repeatable."),
    _server(
        "allowed_origin",
        list[str],
        "Let web pages of this origin call the server (CORS); repeatable; '*' is all.",
    ),
    _server("ssl_certfile", str, "Serve HTTPS with this certificate (PEM)."),
    _server("ssl_keyfile", str, "The certificate's private key, unless it is in the same file."),
    _server("root_path", str, "The prefix that a reverse proxy takes away, such as /llm."),
    _server("management", bool, "Have /sleep, /wake_up, /reset_prefix_cache. [loopback or keys]"),
    _server("page", bool, "Have the chat page at /. [on]"),
    _server("log_requests", bool, "One line for each request; never its prompt. [on]"),
    _server("otlp_endpoint", str, "Send a span for each request there (octavo[otel])."),
    _limit("max_body_bytes", int, "Largest body of a request. [32 MiB]"),
    _limit("max_prompt_tokens", int, "Longest prompt in tokens. [what the context holds]"),
    _limit("max_choices", int, "Most answers to a request, its prompts together. [128]"),
    _limit("max_concurrent_requests", int, "Most requests at once; others get 429. [no limit]"),
    _limit("request_timeout_s", float, "Seconds after which a request is ended. [no limit]"),
    _limit("body_timeout_s", float, "Seconds in which a request must have arrived. [60]"),
    _limit("keep_alive_timeout_s", float, "Seconds that an idle connection is kept. [5]"),
    _limit("shutdown_timeout_s", float, "Seconds for requests to end after SIGTERM. [30]"),
)
