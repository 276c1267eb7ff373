"""What columns of weights count, against what transformers' modules are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from reference import SIZES, make_reference
from test_families import CONFIGS

from octavo.loading import open_checkpoint
from octavo.loading.importance import measure_importance, random_tokens
from octavo.models.registry import build_model

PROJECTIONS = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)


def seen(reference, token_ids):
    """The mean square of each input of each projection, by the name of the weight."""
    squares = {}

    def note(name):
        return lambda _module, inputs: squares.update(
            {f"{name}.weight": inputs[0].square().mean(dim=(0, 1)).numpy()}
        )

    for name, module in reference.named_modules():
        if isinstance(module, PROJECTIONS) and name != "lm_head":
            module.register_forward_pre_hook(note(name))
    with torch.no_grad():
        reference(torch.tensor(token_ids, dtype=torch.int64))
    return squares


@pytest.mark.parametrize("name", CONFIGS)
def test_importance_is_the_mean_square_of_what_a_projection_reads(name, tmp_path):
    reference = make_reference(CONFIGS[name](), tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    model = build_model(checkpoint.config)
    importance = measure_importance(model, checkpoint.tensors)
    expected = seen(reference, random_tokens(model))
    assert importance.keys() == expected.keys()
    for weight, squares in expected.items():
        np.testing.assert_allclose(importance[weight], squares, rtol=1e-3, atol=1e-5)


def test_it_stays_within_a_short_context(tmp_path):
    make_reference(transformers.LlamaConfig(**{**SIZES, "max_position_embeddings": 4}), tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    model = build_model(checkpoint.config)
    assert random_tokens(model).shape[1] == 4
    assert measure_importance(model, checkpoint.tensors)
