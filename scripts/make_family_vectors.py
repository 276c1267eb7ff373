"""Make core/src/octavo/testing/vectors/families.json: what tiny models of every family answer.

transformers computes it in float64, from the weights that ``load_format="dummy"`` gives. (Where
transformers itself goes through float32, as in softmax and rope, so does this: about 1e-7.) A seed
is taken only if no answer is near a tie and the answer is not one token again and again.

    python scripts/make_family_vectors.py            # search seeds, write the file
    python scripts/make_family_vectors.py --check    # compute again what the file holds, compare
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from octavo.loading.dummy import DummySource
from octavo.models.counting import tensor_shapes
from octavo.models.registry import build_model
from octavo.testing.family_vectors import FamilyVector, NextToken, family_vectors
from octavo.testing.tiny_models import TINY_MODELS, VOCAB_SIZE

PATH = Path(__file__).parents[1] / "core/src/octavo/testing/vectors/families.json"
PROMPT_LEN = 40
NUM_NEW_TOKENS = 16
SMALLEST_MARGIN = 0.01
NUM_DIFFERENT_TOKENS = 7
MAX_SEEDS = 1000


def reference_model(config: Mapping[str, Any], seed: int) -> Any:
    """The model of transformers for ``config`` with the dummy weights of ``seed``, in float64."""
    settings = transformers.AutoConfig.for_model(**config)
    model = transformers.AutoModelForCausalLM.from_config(
        settings, dtype=torch.float64, attn_implementation="eager"
    )
    source = DummySource(config, seed)
    shapes = tensor_shapes(build_model(config))
    state = {
        name: torch.from_numpy(source.read_shaped(name, shape, "float32").astype(np.float64))
        for name, shape in shapes.items()
    }
    found = model.load_state_dict(state, strict=False)
    left_out = set(found.missing_keys) - {"lm_head.weight"}  # tied to the embedding
    if found.unexpected_keys or left_out or ("lm_head.weight" in state) == bool(found.missing_keys):
        raise ValueError(f"the tensors differ: {found}, octavo has {sorted(shapes)}")
    return model.eval()


def prompt_of(seed: int) -> list[int]:
    """Random token ids."""
    rng = np.random.default_rng([20, seed])
    return [int(token_id) for token_id in rng.integers(0, VOCAB_SIZE, PROMPT_LEN)]


@torch.no_grad()
def answer(model: Any, prompt: Sequence[int]) -> list[NextToken]:
    """The greedy answer, over transformers' cache."""
    model = copy.deepcopy(model)  # dynamic rope keeps state from one prompt to the next
    output = model(torch.tensor([prompt]), use_cache=True)
    tokens = [likeliest(output.logits[0, -1])]
    while len(tokens) < NUM_NEW_TOKENS:
        newest = torch.tensor([[tokens[-1].token_id]])
        output = model(newest, past_key_values=output.past_key_values, use_cache=True)
        tokens.append(likeliest(output.logits[0, -1]))
    return tokens


@torch.no_grad()
def after_prefixes(model: Any, prompt: Sequence[int]) -> list[NextToken]:
    """What follows each prefix of the prompt, as a prompt of its own."""
    return [
        likeliest(copy.deepcopy(model)(torch.tensor([prompt[:length]])).logits[0, -1])
        for length in range(1, len(prompt) + 1)
    ]


@torch.no_grad()
def prompt_logprobs(model: Any, prompt: Sequence[int]) -> list[float]:
    """Of each token of the prompt but the first."""
    logits = copy.deepcopy(model)(torch.tensor([prompt])).logits[0, :-1]
    chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(prompt[1:])[:, None])
    return [float(logprob) for logprob in chosen[:, 0]]


def likeliest(logits: torch.Tensor) -> NextToken:
    """The likeliest token and how far ahead of the next it is."""
    top = torch.log_softmax(logits, -1).topk(2)
    first, second = top.values.tolist()
    return NextToken(int(top.indices[0]), first, first - second)


def compute(name: str, seed: int) -> FamilyVector | None:
    """The vector of one model and seed; None if the seed will not do."""
    model, prompt = reference_model(TINY_MODELS[name].config, seed), prompt_of(seed)
    tokens = answer(model, prompt)
    if len({token.token_id for token in tokens}) < NUM_DIFFERENT_TOKENS or is_close(tokens):
        return None
    prefixes = after_prefixes(model, prompt)
    if is_close(prefixes):
        return None
    return FamilyVector(
        seed, tuple(prompt), tuple(prompt_logprobs(model, prompt)), tuple(tokens), tuple(prefixes)
    )


def is_close(tokens: Sequence[NextToken]) -> bool:
    """Whether rounding could choose another token somewhere."""
    return min(token.margin for token in tokens) < SMALLEST_MARGIN


def search(name: str) -> FamilyVector:
    """The vector of the first seed that will do."""
    for seed in range(MAX_SEEDS):
        vector = compute(name, seed)
        if vector is not None:
            print(f"{name}: seed {seed}")
            return vector
    raise ValueError(f"{name}: none of {MAX_SEEDS} seeds will do")


def largest_difference(name: str) -> float:
    """Between the file's numbers and those computed again; infinite if a token differs."""
    stored = family_vectors()[name]
    fresh = compute(name, stored.seed)
    if fresh is None or fresh.prompt != stored.prompt:
        return float("inf")
    pairs = list(zip(fresh.prompt_logprobs, stored.prompt_logprobs, strict=True))
    for ours, theirs in zip(
        (*fresh.answer, *fresh.after_prefix), (*stored.answer, *stored.after_prefix), strict=True
    ):
        if ours.token_id != theirs.token_id:
            return float("inf")
        pairs += [(ours.logprob, theirs.logprob), (ours.margin, theirs.margin)]
    return max(abs(ours - theirs) for ours, theirs in pairs)


def write(vectors: Mapping[str, FamilyVector]) -> None:
    """One line for each list, so that a change shows where it is."""
    lines = []
    for name, vector in vectors.items():
        fields = {
            "seed": vector.seed,
            "prompt": vector.prompt,
            "prompt_logprobs": [round(logprob, 8) for logprob in vector.prompt_logprobs],
            "answer": list(map(rounded, vector.answer)),
            "after_prefix": list(map(rounded, vector.after_prefix)),
        }
        rows = ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in fields.items())
        lines.append(f' "{name}": {{\n{rows}\n }}')
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def rounded(token: NextToken) -> list[float]:
    """As the file holds it."""
    values = asdict(token)
    return [values["token_id"], round(values["logprob"], 8), round(values["margin"], 8)]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compute again and compare")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.check:
        write({name: search(name) for name in TINY_MODELS})
        return
    differences = {name: largest_difference(name) for name in TINY_MODELS}
    for name, difference in differences.items():
        print(f"{name}: {difference:.1e}")
    if max(differences.values()) > 1e-6:
        sys.exit("the file does not hold what transformers computes: make it again and look why")


if __name__ == "__main__":
    main()
