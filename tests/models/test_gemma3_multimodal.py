"""The text part of a multimodal Gemma 3 checkpoint."""

from __future__ import annotations

import numpy as np
import torch
import transformers
from reference import load_driver, prompt, randomise

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
TEXT = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 11,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "pad_token_id": 0,
}


def test_text_part(tmp_path):
    config = transformers.Gemma3Config(
        text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4, image_token_index=255
    )
    torch.manual_seed(0)
    reference = transformers.Gemma3ForConditionalGeneration(config).float().eval()
    reference.set_attn_implementation("eager")
    randomise(reference)
    reference.save_pretrained(tmp_path)
    tokens = [token % 255 for token in prompt(37)]
    with torch.no_grad():
        expected = reference(torch.tensor([tokens])).logits[0].numpy()

    driver, loader = load_driver(tmp_path)
    logits = driver.prefill(driver.start(tokens), 5)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    unused = loader.unused()
    assert unused, "the vision part is not read, and is reported"
    assert all("vision_tower" in name or "multi_modal_projector" in name for name in unused)
