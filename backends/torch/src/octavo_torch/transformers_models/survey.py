"""What a model of transformers does with attention: seen in one pass on the meta device.

Nothing is guessed from config names: the pass records what each layer hands to attention, and the
mask that transformers would build for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from octavo.api import AttentionParams, ModelLoadError

__all__ = ["NAME", "LayerFacts", "Survey", "hand_back", "register", "survey"]

Tensor: TypeAlias = torch.Tensor
NAME = "octavo_survey"
_TOKENS = 3
_FAR = 1 << 20  # where masks without a window are tried
# What may be given to attention beside these must be None, False or 0.
_HARMLESS = {
    *("position_ids", "cache_position", "position_embeddings", "is_causal", "use_cache"),
    *("deterministic", "target_dtype", "softmax_scale", "output_router_logits", "layer_idx"),
}


@dataclass(frozen=True)
class LayerFacts:
    """One layer's attention."""

    module: str  # its name in the model
    kv_heads: int
    head_dim: int
    params: AttentionParams


@dataclass(frozen=True)
class Survey:
    """One model."""

    layers: tuple[LayerFacts, ...]
    trunk: str  # the name of what gives hidden states; "" where it is missing
    hidden_size: int
    vocab_size: int


def survey(model: Any) -> Survey:
    """Run ``model``, which is on the meta device; raises ModelLoadError for what cannot be run."""
    name = type(model).__name__
    calls: list[LayerFacts] = []
    for path, module in model.named_modules():
        module.octavo_survey = (path, calls)
    if getattr(model, "_can_set_experts_implementation", bool)():
        model.set_experts_implementation("batched_mm")  # the others look at values
    places = {
        "input_ids": torch.zeros(1, _TOKENS, dtype=torch.long, device="meta"),
        "position_ids": torch.arange(_TOKENS, device="meta")[None],
        "attention_mask": torch.ones(1, _TOKENS, dtype=torch.long, device="meta"),
    }
    trunk_name, trunk = _trunk(model)
    try:
        with torch.no_grad():
            hidden = trunk(**places, use_cache=False)[0]
            layers = tuple(calls)
            _check_layers(model, layers)
            trunk.forward = hand_back
            logits = model(inputs_embeds=hidden, use_cache=False).logits
    except ModelLoadError:
        raise
    except Exception as error:
        raise _refused(name, f"its code does not run without values ({error!r})") from error
    if len(calls) != len(layers):
        raise _refused(name, "its hidden states and its logits cannot be had apart")
    return Survey(layers, trunk_name, hidden.shape[-1], logits.shape[-1])


def hand_back(*_args: Any, inputs_embeds: Tensor, **_kwargs: Any) -> Any:
    """In place of a trunk's forward: what comes in are its hidden states already."""
    return _HiddenStates((inputs_embeds,))


class _HiddenStates(tuple[Tensor, ...]):
    """A trunk's output: of all that heads read, only the hidden states are there."""

    __slots__ = ()

    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _trunk(model: Any) -> tuple[str, Any]:
    """The part that ends in hidden states, with its name."""
    trunk = model.get_decoder()
    names = [path for path, module in model.named_modules() if module is trunk and path]
    if not names:
        raise _refused(type(model).__name__, "it has no base model of its own")
    if "position_ids" not in inspect.signature(trunk.forward).parameters:
        raise _refused(type(model).__name__, "it does not take the positions of its tokens")
    return names[0], trunk


def _check_layers(model: Any, layers: tuple[LayerFacts, ...]) -> None:
    name, expected = type(model).__name__, model.config.get_text_config().num_hidden_layers
    if len({layer.module for layer in layers}) != len(layers):
        raise _refused(name, "it runs one layer's attention more than once")
    if len(layers) != expected:
        raise _refused(
            name,
            f"{len(layers)} of its {expected} layers call transformers' attention interface; the "
            "others compute attention of their own, or none",
        )
    blocks = layers[0].module.partition(".0.")[0] + "."
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Conv1d) and path.startswith(blocks):
            raise _refused(name, f"{path} mixes neighbouring tokens, whosever they are")


def _record(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001 - zero in inference
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,  # noqa: ARG001 - allowed, and handed on in each step
    **settings: Any,
) -> tuple[Tensor, None]:
    path, calls = module.octavo_survey
    owner = f"{type(module).__name__} ({path})"
    window = sliding_window
    if attention_mask is not None:
        if not hasattr(attention_mask, "octavo_window"):
            raise _refused(owner, "it brings an attention mask of its own")
        window = attention_mask.octavo_window
    odd = [each for each, value in settings.items() if each not in _HARMLESS and _is_set(value)]
    if odd:
        raise _refused(owner, f"it hands {', '.join(odd)} to attention, which Octavo has not")
    if getattr(module, "is_causal", True) is False or settings.get("is_causal") is False:
        raise _refused(owner, "its attention looks ahead")
    if isinstance(scaling, Tensor):
        raise _refused(owner, "its scale of attention is no constant")
    params = AttentionParams(
        scale=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        window=window,
        soft_cap=None if softcap is None else float(softcap),
    )
    calls.append(LayerFacts(path, key.shape[1], max(key.shape[-1], value.shape[-1]), params))
    tokens, heads = query.shape[2], query.shape[1]
    return query.new_empty(1, tokens, heads, value.shape[-1]), None


def _is_set(value: Any) -> bool:
    return isinstance(value, Tensor) or bool(value)


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any],
    local_size: int | None = None,
    **_options: Any,
) -> Tensor:
    """A mask without values that knows its window."""
    if not _is_causal(mask_function, local_size):
        raise _refused("the model", "its mask is neither causal nor a sliding window")
    mask = torch.empty(batch_size, 1, q_length, kv_length, device="meta", dtype=torch.bool)
    mask.octavo_window = local_size  # type: ignore[attr-defined]
    return mask


def _is_causal(mask_function: Callable[..., Any], window: int | None) -> bool:
    """Whether a query at q sees just the keys at q - window < k <= q, tried about the edges."""
    zero = torch.zeros((), dtype=torch.long)
    edge = window or _FAR
    for query in (0, 1, edge - 1, edge, edge + 1, 2 * edge + 3, 5 * edge + 7):
        for distance in (-1, 0, 1, edge // 2, edge - 1, edge, edge + 1):
            if distance > query:
                continue
            sees = mask_function(zero, zero, torch.tensor(query), torch.tensor(query - distance))
            if bool(sees) != (distance >= 0 and (window is None or distance < window)):
                return False
    return True


def register() -> None:
    """Make ``NAME`` known to transformers, with the masks that are surveyed."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _record)
    AttentionMaskInterface.register(NAME, _mask)


def _refused(name: str, why: str) -> ModelLoadError:
    return ModelLoadError(f"--model-impl transformers cannot run {name}: {why}.")
