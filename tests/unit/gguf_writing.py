"""Writes tiny GGUF files with the gguf package, the way llama.cpp's converter would."""

from __future__ import annotations

import gguf
import numpy as np
from gguf import GGMLQuantizationType

RNG = np.random.default_rng(11)

# Byte positions of the float16 scales in a block: random bytes there would be NaN now and then.
SCALE_BYTES = {
    GGMLQuantizationType.Q4_0: (0,),
    GGMLQuantizationType.Q4_1: (0, 2),
    GGMLQuantizationType.Q5_0: (0,),
    GGMLQuantizationType.Q5_1: (0, 2),
    GGMLQuantizationType.Q8_0: (0,),
    GGMLQuantizationType.Q4_K: (0, 2),
    GGMLQuantizationType.Q5_K: (0, 2),
    GGMLQuantizationType.Q6_K: (208,),
}
FLOAT_TYPES = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
ALL_TYPES = (*FLOAT_TYPES, *SCALE_BYTES)


def random_rows(quant_type, num_rows, row_length):
    """Packed rows uint8[num_rows, bytes] of a type: every code, scale and minimum occurs."""
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[quant_type]
    num_blocks = num_rows * row_length // block_size
    if quant_type in FLOAT_TYPES:
        weights = RNG.standard_normal((num_rows, row_length)).astype(np.float32)
        return gguf.quants.quantize(weights, quant_type).view(np.uint8).reshape(num_rows, -1)
    blocks = RNG.integers(0, 256, (num_blocks, block_bytes), dtype=np.uint8)
    for byte in SCALE_BYTES[quant_type]:
        scales = RNG.standard_normal((num_blocks, 1)).astype("<f2")
        blocks[:, byte : byte + 2] = scales.view(np.uint8)
    return blocks.reshape(num_rows, -1)


def reference_weights(rows, quant_type):
    """The gguf package's own dequantisation: float32[num_rows, row_length]."""
    return gguf.quants.dequantize(rows, quant_type).astype(np.float32)


def write_gguf(path, architecture, settings, tensors, *, alignment=None):
    """``settings``: (type method, key, value). ``tensors``: name → float32 array, (rows, type)."""
    writer = gguf.GGUFWriter(path, architecture)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for method, key, value in settings:
        getattr(writer, f"add_{method}")(key, value)
    for name, tensor in tensors.items():
        if isinstance(tensor, tuple):
            rows, quant_type = tensor
            writer.add_tensor(name, rows, raw_dtype=quant_type)
        else:
            writer.add_tensor(name, np.ascontiguousarray(tensor, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


LLAMA_SETTINGS = (
    ("uint32", "llama.block_count", 1),
    ("uint32", "llama.context_length", 128),
    ("uint32", "llama.embedding_length", 256),
    ("uint32", "llama.feed_forward_length", 512),
    ("uint32", "llama.attention.head_count", 4),
    ("uint32", "llama.attention.head_count_kv", 2),
    ("float32", "llama.attention.layer_norm_rms_epsilon", 1e-5),
    ("float32", "llama.rope.freq_base", 10000.0),
)


def llama_tensors(quant_type, vocab_size=64):
    """A one-layer Llama in one weight format, random; norms are float32 as the converter has it."""
    shapes = {
        "token_embd.weight": (vocab_size, 256),
        "blk.0.attn_q.weight": (256, 256),
        "blk.0.attn_k.weight": (128, 256),
        "blk.0.attn_v.weight": (128, 256),
        "blk.0.attn_output.weight": (256, 256),
        "blk.0.ffn_gate.weight": (512, 256),
        "blk.0.ffn_up.weight": (512, 256),
        "blk.0.ffn_down.weight": (256, 512),
    }
    tensors = {
        name: (random_rows(quant_type, *shape), quant_type) for name, shape in shapes.items()
    }
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        tensors[name] = RNG.standard_normal(256).astype(np.float32)
    return tensors
