"""From a config.json to a model: architectures by name, imported when they are asked for.

Who has written a model is its implementation: Octavo (and plugins that add an architecture), or a
library that a plugin offers for all architectures at once (``ModelSpec(architecture="*")``).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from octavo.errors import ModelLoadError, UsageError

if TYPE_CHECKING:
    from octavo.models.base import HFConfig, Model
    from octavo.spec import ModelSpec

__all__ = ["ANY", "KNOWN", "build_model", "choose_implementation", "known_architectures"]

ANY = "*"
"""The architecture of a ModelSpec that stands for all."""

KNOWN: Mapping[str, tuple[str, str]] = {
    "GPT2LMHeadModel": ("gpt2", "GPT2"),
    "Gemma2ForCausalLM": ("gemma2", "Gemma2"),
    "Gemma3ForCausalLM": ("gemma3", "Gemma3"),
    "Gemma3ForConditionalGeneration": ("gemma3", "Gemma3"),
    "LlamaForCausalLM": ("llama", "Llama"),
    "MistralForCausalLM": ("mistral", "Mistral"),
    "Olmo2ForCausalLM": ("olmo2", "Olmo2"),
    "Phi3ForCausalLM": ("phi3", "Phi3"),
    "Qwen2ForCausalLM": ("qwen2", "Qwen2"),
    "Qwen3ForCausalLM": ("qwen3", "Qwen3"),
    "SmolLM3ForCausalLM": ("smollm3", "SmolLM3"),
}
"""Architecture, as config.json names it → (module of octavo.models, class)."""

MODEL_TYPES: Mapping[str, str] = {
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma3_text": "Gemma3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
"""``model_type`` → architecture, for configs that name no architecture."""


def known_architectures(overrides: Sequence[ModelSpec] = ()) -> list[str]:
    """Every architecture that ``build_model`` takes, plugins' included."""
    return sorted({*KNOWN, *(spec.architecture for spec in overrides if spec.architecture != ANY)})


def build_model(
    config: HFConfig,
    overrides: Sequence[ModelSpec] = (),
    backend: str | None = None,
    implementation: str = "auto",
) -> Model:
    """The model that ``config`` describes.

    ``overrides`` are plugins' models: one that names ``backend`` goes before one that names none,
    both go before Octavo's own, and of equals the last one registered wins. Raises ModelLoadError
    for an architecture nobody knows, or a config that the architecture cannot take. Of the
    implementations ``auto`` takes Octavo's where there is one; another choice is final.
    """
    _refuse_quantized(config)
    chosen = choose_implementation(config, overrides, backend, implementation)
    if chosen != "octavo":
        return _general(overrides, backend)[chosen](config)
    builders = _builders(overrides, backend)
    architectures = _architectures(config)
    for architecture in architectures:
        if architecture in builders:
            return builders[architecture](config)
    raise _unknown(architectures, sorted(builders))


def choose_implementation(
    config: HFConfig,
    overrides: Sequence[ModelSpec] = (),
    backend: str | None = None,
    implementation: str = "auto",
) -> str:
    """Who builds the model: ``octavo``, or the name of what a plugin offers for all of them.

    Raises UsageError if ``implementation`` cannot be had on ``backend``.
    """
    general = _general(overrides, backend)
    if implementation == "auto":
        is_written = not _builders(overrides, backend).keys().isdisjoint(_architectures(config))
        return "octavo" if is_written or not general else next(iter(general))
    if implementation != "octavo" and implementation not in general:
        raise UsageError(
            f"model_impl={implementation!r} runs on torch, which backend {backend!r} is not: "
            "choose --backend torch, or a device of torch's (pip install octavo-torch)."
        )
    return implementation


def _general(
    overrides: Sequence[ModelSpec], backend: str | None
) -> dict[str, Callable[[HFConfig], Model]]:
    """Implementations of every architecture, by name."""
    return {
        spec.implementation: spec.build
        for spec in overrides
        if spec.architecture == ANY and spec.backend in (None, backend)
    }


def _builders(
    overrides: Sequence[ModelSpec], backend: str | None
) -> dict[str, Callable[[HFConfig], Model]]:
    builders: dict[str, Callable[[HFConfig], Model]] = {name: _own(name) for name in KNOWN}
    general = [spec for spec in overrides if spec.backend is None]
    special = [spec for spec in overrides if spec.backend is not None and spec.backend == backend]
    for spec in (*general, *special):
        if spec.architecture == ANY:
            continue
        builders[spec.architecture] = spec.build
    return builders


def _own(architecture: str) -> Callable[[HFConfig], Model]:
    module_name, class_name = KNOWN[architecture]

    def build(config: HFConfig) -> Model:
        module = importlib.import_module(f"octavo.models.{module_name}")
        model: Model = getattr(module, class_name)(config)
        return model

    return build


def _architectures(config: HFConfig) -> list[str]:
    """What the config calls itself: ``architectures``, or else what its model_type stands for."""
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures:
        return [str(name) for name in architectures]
    model_type = config.get("model_type")
    if model_type is None:
        raise ModelLoadError(
            "config.json has neither 'architectures' nor 'model_type', so the model is unknown; "
            f"expected one of {', '.join(known_architectures())}."
        )
    return [MODEL_TYPES.get(str(model_type), str(model_type))]


def _unknown(architectures: list[str], known: list[str]) -> ModelLoadError:
    close = difflib.get_close_matches(architectures[0], known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return ModelLoadError(
        f"Architecture {' / '.join(architectures)} is not supported.{hint} "
        f"Known: {', '.join(known)}. A plugin can add it: see octavo_register_models; or let "
        "transformers run it: --backend torch --model-impl transformers."
    )


def _refuse_quantized(config: HFConfig) -> None:
    """A quantised safetensors checkpoint read as if it were not would give wrong numbers."""
    quantization = config.get("quantization_config")
    if isinstance(quantization, Mapping):
        raise ModelLoadError(
            f"The checkpoint is quantised (quant_method={quantization.get('quant_method')!r}), "
            "which Octavo does not read yet; use the unquantised checkpoint or a GGUF file."
        )
