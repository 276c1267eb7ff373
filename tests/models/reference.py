"""The oracle: tiny random models of transformers, saved to a folder as any checkpoint is."""

from __future__ import annotations

import os

import torch
import transformers
from harness import Driver, TinyBackend

from octavo.loading import open_checkpoint
from octavo.loading.weights import CheckpointWeightLoader
from octavo.models.registry import build_model

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


def make_reference(config, folder, seed=0):
    """A random model of ``config`` in ``folder``, as transformers loads it from there."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomise(model)
    model.save_pretrained(folder)
    return load_reference(folder)


def load_reference(folder):
    """Afresh: dynamic rope keeps state from one prompt to the next."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def randomise(model):
    """Weights large enough that logits are far from ties, norms and biases included."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
            if "norm" in name or "ln_" in name:
                is_zero_centred = "gemma" in type(model).__name__.lower()
                parameter.data += 0.0 if is_zero_centred or name.endswith("bias") else 1.0
        else:
            torch.nn.init.normal_(parameter, std=1.5 / parameter.shape[-1] ** 0.5)


def prompt(num_tokens, seed=0):
    """Random token ids."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randint(1, 256, (num_tokens,), generator=generator).tolist()


@torch.no_grad()
def reference_logits(model, tokens):
    """Logits of every token: f32[tokens, vocab]."""
    return model(torch.tensor([tokens])).logits[0].float().numpy()


@torch.no_grad()
def reference_greedy(model, tokens, num_tokens=32):
    """transformers' own generate, with its cache."""
    inputs = torch.tensor([tokens])
    output = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=num_tokens,
        do_sample=False,
    )
    return output[0, len(tokens) :].tolist()


def load_driver(folder, **options):
    """Octavo's model of the checkpoint in ``folder``, ready to run, and its loader."""
    backend = options.pop("backend", TinyBackend())
    checkpoint = open_checkpoint(os.fspath(folder))
    model = build_model(checkpoint.config)
    loader = CheckpointWeightLoader(checkpoint.tensors, backend, "float32")
    weights = model.load(loader)
    return Driver(model, weights, backend, **options), loader
