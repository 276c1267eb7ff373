"""What all parts of gpu.py are told, and the shapes that they measure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

PARTS = ("commands", "kernels", "conform", "attention", "end-to-end", "large")

Row: TypeAlias = dict[str, Any]  # "table" names the table; all else is a column, in this order


@dataclass(frozen=True)
class Settings:
    """How a part runs."""

    device: str
    backend: str
    quick: bool = False
    rehearse: bool = False
    nano_vllm: str | None = None
    left_s: float = 540.0
    copy_bytes_per_s: float | None = None
    """Measured by the part ``machine``: bytes read plus bytes written."""
    matmul_flop_per_s: float | None = None
    memory_bytes: float | None = None

    @property
    def torch_device(self) -> str:
        """ROCm's builds of torch call their devices cuda, too."""
        return self.device.replace("rocm", "cuda")

    def until(self, left_s: float) -> Settings:
        """For a part that must end within ``left_s``."""
        return replace(self, left_s=left_s)

    def with_rates(self, rows: Iterable[Row]) -> Settings:
        """With the device's own limits, where a row has them."""
        known = {row["name"]: row.get("rate") for row in rows if row["table"] == "the device"}
        return replace(
            self,
            copy_bytes_per_s=known.get("copy"),
            matmul_flop_per_s=known.get("bf16 matmul"),
            memory_bytes=known.get("name"),
        )


@dataclass(frozen=True)
class AttentionShape:
    """Heads, and how many requests of which length."""

    num_seqs: int
    context_len: int
    num_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128

    @property
    def label(self) -> str:
        return (
            f"{self.num_seqs} x {self.context_len:,}, heads {self.num_heads}/{self.num_kv_heads} "
            f"x {self.head_dim}"
        )


TINY = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16}


def decode_shape(settings: Settings) -> AttentionShape:
    return AttentionShape(2, 48, **TINY) if settings.rehearse else AttentionShape(64, 4096)


def prefill_shape(settings: Settings) -> AttentionShape:
    return AttentionShape(1, 48, **TINY) if settings.rehearse else AttentionShape(1, 8192)


QWEN3_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 12288,
    "tie_word_embeddings": False,
}
"""What its published configuration has unlike Qwen3-0.6B's (shape_folder.py)."""

TINY_QWEN3 = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 10_240,
}
"""For rehearsals; more tokens than the workload draws from."""
