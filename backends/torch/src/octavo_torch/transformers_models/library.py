"""The transformers library, imported only here: its configs, its classes, and no noise of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from octavo.api import ModelLoadError

__all__ = ["config_of", "meta_model", "quiet"]

_OLDEST = (5, 0)
_INSTALL = "pip install -U 'transformers>=5.0'"
# Their frequencies follow the longest sequence of a batch, so answers would depend on neighbours.
_BATCH_DEPENDENT_ROPES = ("dynamic", "longrope")
_LAYER_TYPES = ("full_attention", "sliding_attention", "attention", "dense", "sparse")


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ModelLoadError(
            f"--model-impl transformers needs the transformers library ({error}): {_INSTALL}"
        ) from error
    version = transformers.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise ModelLoadError(
            f"--model-impl transformers needs transformers 5.0 or newer; {version} is installed: "
            f"{_INSTALL}"
        )
    return transformers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Errors only, no progress bars; as it was afterwards."""
    logging = _library().utils.logging
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def config_of(config: Mapping[str, Any]) -> Any:
    """The config object of transformers for a config.json; what cannot work is refused by name."""
    library = _library()
    model_type = config.get("model_type")
    name = " / ".join(config.get("architectures") or [str(model_type)])
    try:
        kind = library.models.auto.configuration_auto.CONFIG_MAPPING[model_type]
    except KeyError:
        own = " It brings code of its own, which Octavo never runs." if "auto_map" in config else ""
        raise ModelLoadError(
            f"transformers {library.__version__} does not know model_type {model_type!r} ({name})."
            f"{own} A newer one may: {_INSTALL}"
        ) from None
    try:
        with quiet():
            parsed = kind.from_dict(dict(config))
    except Exception as error:
        raise ModelLoadError(
            f"transformers does not take the config.json of {name}: {error}"
        ) from error
    _refuse(parsed, name)
    return parsed


def _refuse(config: Any, name: str) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise _cannot(name, "it is an encoder-decoder; Octavo runs decoders alone")
    if getattr(config, "alibi", False):
        raise _cannot(name, "its attention adds a bias by position (ALiBi)")
    for kind in _rope_types(getattr(config, "rope_parameters", None)):
        if kind in _BATCH_DEPENDENT_ROPES:
            raise _cannot(
                name, f"transformers' {kind!r} rope follows the longest sequence of a batch"
            )


def _rope_types(parameters: Any) -> Iterator[str]:
    """Of one set of parameters, or of one for each kind of layer."""
    if isinstance(parameters, Mapping):
        if "rope_type" in parameters:
            yield str(parameters["rope_type"])
        for value in parameters.values():
            yield from _rope_types(value)


def meta_model(config: Any, attention: str) -> Any:
    """The causal model of a config, without memory: its class, names and shapes."""
    import torch

    library = _library()
    name = " / ".join(config.architectures or [config.model_type])
    classes = library.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in classes:
        raise _cannot(name, "transformers has no causal language model of it")
    kind = classes[type(config)]
    if getattr(kind, "_is_stateful", False):
        raise _cannot(name, "it keeps a state (state-space or hybrid), not keys and values alone")
    for layer_type in getattr(config, "layer_types", None) or ():
        if layer_type not in _LAYER_TYPES:
            raise _cannot(name, f"Octavo has no cache for its layers of kind {layer_type!r}")
    try:
        with quiet(), torch.device("meta"):
            model = kind._from_config(config, attn_implementation=attention)  # noqa: SLF001 - public only through AutoModel
    except KeyError as error:
        if error.args != (attention,):
            raise _cannot(name, f"its config lacks {error}") from error
        why = "its attention does not go through transformers' attention interface"
        raise _cannot(name, why) from error
    except Exception as error:
        raise _cannot(name, f"transformers does not build it: {error}") from error
    return model.eval()


def _cannot(name: str, why: str) -> ModelLoadError:
    return ModelLoadError(f"--model-impl transformers cannot run {name}: {why}.")
