"""A module with vllm-xpu-kernels' public attention, in NumPy's float64, strict about tensors.

Parameters are those of 0.1.16.2, by name and order, and so is what its C++ asks of tensors. Keys
and values are found as its kernels find them, by strides alone, and whole blocks of them are read:
what is behind a sequence's end is multiplied by zero, which keeps NaN.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from itertools import pairwise
from types import ModuleType

import numpy as np
import torch

PARAMETERS = (
    "q k v max_seqlen_q cu_seqlens_q max_seqlen_k cu_seqlens_k seqused_k q_v dropout_p "
    "softmax_scale causal window_size softcap alibi_slopes deterministic return_attn_probs "
    "block_table return_softmax_lse out scheduler_metadata q_descale k_descale v_descale "
    "num_splits fa_version s_aux num_splits_kv is_mix_batch host_kv_lens"
)
NAMES = PARAMETERS.split(" ")
USED = {"q", "k", "v", "max_seqlen_q", "cu_seqlens_q", "max_seqlen_k", "seqused_k", "out"}
USED |= {"softmax_scale", "causal", "block_table"}


class Library:
    """What was asked for, for tests to look at; ``dtypes`` are those that it takes."""

    dtypes = (torch.float16, torch.bfloat16)
    head_dims = (64, 96, 128, 192, 256)
    block_sizes = (16, 32, 64, 128)
    alignment = 16  # bytes

    def __init__(self) -> None:
        self.calls: list[int] = []  # max_seqlen_q of each
        self.factor = 1.0

    def flash_attn_varlen_func(self, *args, **kwargs) -> torch.Tensor:
        unknown = set(kwargs) - set(NAMES[len(args) :])
        assert not unknown, f"it does not take {unknown}"
        given = dict(zip(NAMES, args, strict=False)) | kwargs
        assert set(given) <= USED  # what the stand-in computes with
        self.check(given)
        starts, lengths = given["cu_seqlens_q"].tolist(), given["seqused_k"].tolist()
        assert given["max_seqlen_q"] == max(end - start for start, end in pairwise(starts))
        assert given["max_seqlen_k"] >= max(lengths)
        q, out = given["q"], given["out"]
        for seq, (start, end) in enumerate(pairwise(starts)):
            found = attend(seq, q[start:end], lengths[seq], given) * self.factor
            out[start:end] = torch.from_numpy(found).to(out.dtype)
        self.calls.append(given["max_seqlen_q"])
        return out

    def check(self, given: dict) -> None:
        """As ``mha_varlen_fwd`` and ``check_paged_kv_cache_strides`` do."""
        q, k, v, table = (given[name] for name in ("q", "k", "v", "block_table"))
        assert q.dtype == k.dtype == v.dtype
        assert q.dtype in self.dtypes
        assert (q.dim(), q.shape[2]) == (3, k.shape[3])
        assert q.shape[2] in self.head_dims
        assert k.shape == v.shape
        assert k.shape[1] in self.block_sizes
        assert q.shape[1] % k.shape[2] == 0
        for tensor in (q, k, v):
            assert tensor.stride(-1) == 1
            apart = [stride * tensor.element_size() for stride in tensor.stride()[:-1]]
            assert all(each % self.alignment == 0 for each in apart)
        for cache in (k, v):
            assert cache.stride(1) > 0
            assert cache.stride(0) % cache.stride(1) == 0
        assert k.stride(0) // k.stride(1) == v.stride(0) // v.stride(1)
        num_seqs = len(table)
        assert (table.dtype, table.stride(-1)) == (torch.int32, 1)
        for name, size in (("cu_seqlens_q", num_seqs + 1), ("seqused_k", num_seqs)):
            assert (given[name].dtype, given[name].shape) == (torch.int32, (size,))
            assert given[name].is_contiguous()
        assert given["cu_seqlens_q"][0] == 0
        assert given["cu_seqlens_q"][-1] == len(q)
        assert int(given["seqused_k"].min()) > 0
        assert (given["out"].shape, given["out"].dtype) == (q.shape, q.dtype)
        assert given["out"].is_contiguous()


def attend(seq: int, q: torch.Tensor, length: int, given: dict) -> np.ndarray:
    """float64[tokens, heads, head_dim]: the queries stand at the sequence's end."""
    blocks = given["block_table"][seq].tolist()
    num_keys = -(-length // given["k"].shape[1]) * given["k"].shape[1]
    k, v = (rows_of(given[name], blocks, num_keys) for name in "kv")
    queries = q.double().numpy()
    group = queries.shape[1] // k.shape[0]
    k, v = (np.repeat(part, group, 0) for part in (k, v))  # [heads, keys, head_dim]
    scores = np.einsum("qhd,hkd->hqk", queries, k) * given["softmax_scale"]
    position = length - len(q) + np.arange(len(q))[:, None]
    keys = np.arange(num_keys)
    assert given["causal"]
    visible = keys <= position
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,hkd->qhd", weights, v)


def rows_of(cache: torch.Tensor, blocks: list[int], num_keys: int) -> np.ndarray:
    """float64[kv_heads, keys, head_dim]: rows of memory, as many numbers apart as a token's are."""
    memory = cache.as_strided((cache.untyped_storage().nbytes() // cache.element_size(),), (1,), 0)
    numbers = memory.double().numpy()
    _, block_size, kv_heads, head_dim = cache.shape
    page_rows = cache.stride(0) // cache.stride(1)
    keys = np.arange(num_keys)
    rows = np.array(blocks)[keys // block_size] * page_rows + keys % block_size
    heads = cache.storage_offset() + np.arange(kv_heads) * cache.stride(2)
    places = heads[:, None, None] + rows[:, None] * cache.stride(1) + np.arange(head_dim)
    return numbers[places]


def stand_in(library: Library) -> dict[str, ModuleType]:
    """The package and its module, by name."""
    package, module = ModuleType("vllm_xpu_kernels"), ModuleType("flash_attn_interface")
    package.__spec__ = ModuleSpec("vllm_xpu_kernels", None)
    package.__path__ = []
    module.FA2_AVAILABLE, module.FA2_UNAVAILABLE_REASON = True, None
    module.flash_attn_varlen_func = library.flash_attn_varlen_func
    return {"vllm_xpu_kernels": package, "vllm_xpu_kernels.flash_attn_interface": module}
