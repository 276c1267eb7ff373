"""``octavo.models.base.Model`` over a causal model of transformers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.api import KVSpec, ModelLoadError, step_tree
from octavo_torch.dtypes import torch_dtype
from octavo_torch.transformers_models import attention, library
from octavo_torch.transformers_models import survey as surveying
from octavo_torch.transformers_models.attention import Place, Run

if TYPE_CHECKING:
    from octavo.api import Cache, Ops

__all__ = ["TransformersModel"]

Tensor: TypeAlias = torch.Tensor
_UNLIMITED = 1 << 20  # positions of models whose config names no limit


@step_tree
@dataclass(frozen=True)
class TransformersWeights:
    """A loaded model: its modules hold the parameters."""

    module: Any  # of transformers; its trunk hands back the hidden states that it is given
    trunk: Any  # the forward of its trunk
    run: Run


class TransformersModel:
    """Any causal language model of transformers, with Octavo's paged attention.

    All tokens of a step are one sequence to transformers; positions and attention tell them apart.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raise ModelLoadError for what cannot be run; no weight is read."""
        attention.register()
        surveying.register()
        self.config = library.config_of(config)
        model = library.meta_model(self.config, surveying.NAME)
        self._kind = type(model)
        self._shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        self._tied = set(getattr(model, "all_tied_weights_keys", None) or ())
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.survey = surveying.survey(model)

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self.survey.vocab_size

    @property
    def hidden_size(self) -> int:
        """Features of the hidden states."""
        return self.survey.hidden_size

    @property
    def max_position_embeddings(self) -> int:
        """What the config says, under one name or another."""
        text = self.config.get_text_config()
        for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(limit := getattr(text, name, None), int):
                return limit
        return _UNLIMITED

    def kv_specs(self, dtype: str) -> tuple[KVSpec, ...]:
        """As the layers were seen to call attention."""
        return tuple(
            KVSpec(
                "full" if layer.params.window is None else "sliding",
                layer.kv_heads,
                layer.head_dim,
                dtype,
                layer.params.window,
            )
            for layer in self.survey.layers
        )

    def load(self, loader: Any) -> TransformersWeights | None:
        """Through transformers' own conversion of checkpoints; None for a loader that counts."""
        shapes = {name: shape for name, shape in self._shapes.items() if name not in self._tied}
        tensors = loader.tensors(shapes)
        if tensors is None:
            return None
        state = {name: _tensor(array) for name, array in tensors.items()}
        with library.quiet():
            model, info = self._kind.from_pretrained(
                None,
                config=self.config,
                state_dict=state,
                dtype=torch_dtype(loader.dtype),
                attn_implementation=attention.NAME,
                output_loading_info=True,
            )
        self._check(info)
        loader.leave(info["unexpected_keys"])
        return self._attach(model.to(loader.put(np.zeros(1, np.float32)).device))

    def _check(self, info: Mapping[str, Any]) -> None:
        missing = sorted(set(info["missing_keys"]) - self._tied)
        others = [*info["mismatched_keys"], *info.get("error_msgs", ())]
        faults = [*missing, *map(str, others)]
        if faults:
            shown = ", ".join(faults[:5]) + (" …" if len(faults) > 5 else "")
            raise ModelLoadError(
                f"The checkpoint does not have what {self._kind.__name__} of transformers needs: "
                f"{len(faults)} tensors are missing or of another shape ({shown})."
            )

    def _attach(self, model: Any) -> TransformersWeights:
        """Give each attention module its place, and split the trunk from the head."""
        run = Run()
        model.requires_grad_(requires_grad=False)
        for index, layer in enumerate(self.survey.layers):
            module = model.get_submodule(layer.module)
            module.octavo_place = Place(run, index, layer.params, layer.head_dim)
        trunk_module = model.get_submodule(self.survey.trunk)
        trunk = trunk_module.forward
        trunk_module.forward = surveying.hand_back
        return TransformersWeights(model, trunk, run)

    @torch.no_grad()
    def forward(
        self,
        ops: Ops,
        weights: TransformersWeights,
        caches: tuple[Cache, ...],
        batch: Any,
        plans: tuple[Any, ...],
    ) -> tuple[Tensor, tuple[Cache, ...]]:
        """Hidden states [tokens, hidden_size] after the final norm, and the caches."""
        run = weights.run
        run.ops, run.plans, run.caches = ops, plans, list(caches)
        try:
            output = weights.trunk(
                input_ids=batch.token_ids.long()[None],
                position_ids=batch.positions.long()[None],
                use_cache=False,
            )
            return output[0][0], tuple(run.caches)
        finally:
            run.ops, run.plans, run.caches = None, (), []

    @torch.no_grad()
    def logits(self, ops: Ops, weights: TransformersWeights, hidden: Tensor) -> Tensor:
        """[rows, hidden_size] → [rows, vocab_size], scaled and capped as the model does."""
        del ops
        logits: Tensor = weights.module(inputs_embeds=hidden[None], use_cache=False).logits[0]
        return logits

    def prefix_salt(self, prompt_len: int) -> int:
        """Nothing but tokens changes the cache: ropes that look at a prompt are refused."""
        del prompt_len
        return 0


def _tensor(array: NDArray[Any]) -> Tensor:
    """The array's memory as a tensor, which nobody writes to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is read-only
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(array)
