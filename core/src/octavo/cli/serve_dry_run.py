"""What ``octavo serve --dry-run`` prints: every model's plan and the server's, nothing loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from octavo.config import EngineConfig
from octavo.server.lifecycle.model_loading import check_formats, formats_of

if TYPE_CHECKING:
    from octavo.fit import FitReport
    from octavo.server.config import ServerConfig
    from octavo.server.lifecycle.deployment import Deployment, ModelPlan
    from octavo.tokenizer import Tokenizer

__all__ = ["print_deployment"]


def print_deployment(deployment: Deployment) -> None:
    """Print the resolved plan. Raises OctavoError for what would keep the server from starting."""
    for plan in deployment.models:
        _print_lines(_model_lines(plan))
    _print_lines(_server_lines(deployment))


def _print_lines(lines: Iterator[tuple[str, str]]) -> None:
    for label, value in list(lines):
        print(f"{label + ':':<18}{value}")
    print()


def _model_lines(plan: ModelPlan) -> Iterator[tuple[str, str]]:
    from octavo.devices import resolve
    from octavo.fit import fit_reports
    from octavo.plugins import load_plugins
    from octavo.policy import load_policy

    check_formats(plan)
    policy = load_policy(plan.engine.plugins_file)
    resolution = resolve(plan.engine.device, plan.engine.backend, policy, load_plugins(policy))
    yield "served as", ", ".join(plan.names)
    yield "chosen", resolution.reason
    reports = fit_reports(plan.engine)
    yield from _report_on(reports, resolution.spec.name).lines()
    yield "engine", f"in a {plan.placement} of its own"
    tokenizer = _tokenizer(plan.engine)
    tool_calls, reasoning = formats_of(plan, tokenizer)
    yield "tool calls", "none" if tool_calls is None else tool_calls.name
    yield "reasoning", "none" if reasoning is None else reasoning.name
    yield "chat template", _template(plan, tokenizer)


def _report_on(reports: list[FitReport], backend: str) -> FitReport:
    """The report of the device that would be used: the first is auto's best."""
    return next((report for report in reports if report.backend == backend), reports[0])


def _tokenizer(config: EngineConfig) -> Tokenizer | None:
    from octavo.configured_checkpoint import configured_checkpoint
    from octavo.tokenizer import has_tokenizer, load_tokenizer

    checkpoint = configured_checkpoint(config)
    try:
        if config.tokenizer is None and not has_tokenizer(checkpoint.tokenizer):
            return None
        return load_tokenizer(checkpoint.tokenizer)
    finally:
        checkpoint.tensors.close()


def _template(plan: ModelPlan, tokenizer: Tokenizer | None) -> str:
    if plan.chat_template is not None:
        return "the one given"
    return "the model's own" if tokenizer is not None and tokenizer.chat_template else "none"


def _server_lines(deployment: Deployment) -> Iterator[tuple[str, str]]:
    config = deployment.server
    if deployment.config_file is not None:
        yield "config file", deployment.config_file
    scheme = "http" if config.ssl_certfile is None else "https"
    host = f"[{config.host}]" if ":" in config.host else config.host
    yield "listens at", f"{scheme}://{host}:{config.port or '(any free port)'}{config.root_path}"
    yield "lets in", f"who shows one of {len(config.api_keys)} keys" if config.api_keys else "all"
    yield "web pages of", ", ".join(config.allowed_origins) or "its own only"
    yield "has", ", ".join(_parts(config))
    yield "limits", ", ".join(_limits(config))
    if config.otlp_endpoint is not None:
        yield "spans go to", config.otlp_endpoint


def _parts(config: ServerConfig) -> Iterator[str]:
    yield "the API"
    if config.enable_page:
        yield "the page at /"
    if config.has_management:
        yield "management"
    if config.log_requests:
        yield "a log line for each request"


def _limits(config: ServerConfig) -> Iterator[str]:
    yield f"bodies of {config.max_body_bytes:,} bytes"
    yield f"{config.max_choices} answers"
    if config.max_prompt_tokens is not None:
        yield f"prompts of {config.max_prompt_tokens:,} tokens"
    if config.max_concurrent_requests is not None:
        yield f"{config.max_concurrent_requests} requests at once"
    if config.request_timeout_s is not None:
        yield f"{config.request_timeout_s:g} s for a request"
    yield f"{config.shutdown_timeout_s:g} s to shut down"
