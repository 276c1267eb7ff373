"""A module with FlashInfer's wrappers of paged attention, in plain torch, strict about arguments.

Parameters are those of flashinfer-python 0.7.2, by name and order, and so is what is asked of
tensors. As on a GPU, what is masked is multiplied by zero, which keeps NaN; only what lies behind
the end of a sequence is read as zeros.
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import ClassVar

import torch

SIGNATURES = {
    ("prefill", "BatchPrefillWithPagedKVCacheWrapper", "__init__"): (
        "float_workspace_buffer kv_layout use_cuda_graph qo_indptr_buf paged_kv_indptr_buf "
        "paged_kv_indices_buf paged_kv_last_page_len_buf custom_mask_buf mask_indptr_buf backend "
        "jit_args jit_kwargs variant_owns_mask"
    ),
    ("prefill", "BatchPrefillWithPagedKVCacheWrapper", "plan"): (
        "qo_indptr paged_kv_indptr paged_kv_indices paged_kv_last_page_len num_qo_heads "
        "num_kv_heads head_dim_qk page_size head_dim_vo custom_mask packed_custom_mask causal "
        "pos_encoding_mode use_fp16_qk_reduction sm_scale window_left logits_soft_cap rope_scale "
        "rope_theta q_data_type kv_data_type o_data_type non_blocking prefix_len_ptr "
        "token_pos_in_items_ptr token_pos_in_items_len max_item_len_ptr seq_lens seq_lens_q "
        "block_tables max_token_per_sequence max_sequence_kv fixed_split_size disable_split_kv "
        "uniform_q_len"
    ),
    ("prefill", "BatchPrefillWithPagedKVCacheWrapper", "run"): (
        "q paged_kv_cache * q_scale k_scale v_scale out lse return_lse lse_base lse_layout "
        "enable_pdl window_left sinks kv_cache_sf skip_softmax_threshold_scale_factor "
        "use_fp16_softmax uses_spcompress"
    ),
    ("decode", "BatchDecodeWithPagedKVCacheWrapper", "__init__"): (
        "float_workspace_buffer kv_layout use_cuda_graph use_tensor_cores paged_kv_indptr_buffer "
        "paged_kv_indices_buffer paged_kv_last_page_len_buffer backend jit_args"
    ),
    # ``plan`` hands its arguments on to this.
    ("decode", "BatchDecodeWithPagedKVCacheWrapper", "_plan_impl"): (
        "indptr indices last_page_len num_qo_heads num_kv_heads head_dim page_size * "
        "pos_encoding_mode window_left window_right logits_soft_cap q_data_type kv_data_type "
        "o_data_type data_type sm_scale rope_scale rope_theta non_blocking block_tables seq_lens "
        "fixed_split_size disable_split_kv q_len_per_req is_causal"
    ),
    ("decode", "BatchDecodeWithPagedKVCacheWrapper", "run"): (
        "q paged_kv_cache * q_scale k_scale v_scale out lse return_lse enable_pdl window_left "
        "sinks q_len_per_req skip_softmax_threshold_scale_factor kv_cache_sf"
    ),
}
"""(module, class, method) → its parameters after self; those behind * by keyword alone."""


def bound(place: tuple[str, str, str], args: tuple, kwargs: dict) -> dict:
    """The arguments by name, if the method takes them so."""
    positional, _, keyword = SIGNATURES[place].partition("*")
    names = positional.split()
    assert len(args) <= len(names), f"{place} takes {names} by position"
    unknown = set(kwargs) - set(names[len(args) :]) - set(keyword.split())
    assert not unknown, f"{place} does not take {unknown}"
    return dict(zip(names, args, strict=False)) | kwargs


def expect_int32(tensor: torch.Tensor, size: int) -> list[int]:
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.int32, (size,))
    return tensor.tolist()


class Wrapper:
    """What both have in common."""

    module: str
    dtypes = (torch.float16, torch.bfloat16)
    made: ClassVar[list[Wrapper]] = []  # every one, for tests to look at

    def __init__(self, *args, **kwargs) -> None:
        given = bound((self.module, type(self).__name__, "__init__"), args, kwargs)
        workspace = given["float_workspace_buffer"]
        assert workspace.dtype == torch.uint8
        assert workspace.numel() >= 128 << 20
        assert given["kv_layout"] == "HND"
        self.device = workspace.device
        self.planned = None
        self.num_plans = self.num_runs = 0
        self.made.append(self)

    def take(self, given: dict, starts: list[int], indptr: torch.Tensor) -> None:
        """Check and keep a plan."""
        num_seqs = len(starts) - 1
        assert num_seqs > 0
        assert starts == sorted(starts)
        pages = expect_int32(indptr, num_seqs + 1)
        assert pages[0] == 0
        assert all(first < end for first, end in pairwise(pages))
        assert given["indices"].device == self.device
        expect_int32(given["indices"], pages[-1])
        last = expect_int32(given["last_page_len"], num_seqs)
        assert all(1 <= each <= given["page_size"] for each in last)
        assert given["num_qo_heads"] % given["num_kv_heads"] == 0
        assert given["q_data_type"] in self.dtypes
        self.planned = given | {"starts": starts, "pages": pages, "last": last}
        self.num_plans += 1

    def run(self, *args, **kwargs) -> torch.Tensor:
        given = bound((self.module, type(self).__name__, "run"), args, kwargs)
        assert set(given) <= {"q", "paged_kv_cache", "out"}  # what the stand-in computes with
        q, (k, v), out = given["q"], given["paged_kv_cache"], given["out"]
        plan = self.planned
        shape = (plan["starts"][-1], plan["num_qo_heads"], plan["head_dim"])
        assert (tuple(q.shape), q.dtype) == (shape, plan["q_data_type"])
        assert (out.shape, out.dtype, out.device) == (q.shape, q.dtype, q.device)
        paged = (plan["num_kv_heads"], plan["page_size"], plan["head_dim"])
        for cache in (k, v):
            assert (tuple(cache.shape[1:]), cache.dtype) == (paged, plan["kv_data_type"])
        for seq, (first, end) in enumerate(pairwise(plan["starts"])):
            out[first:end] = self.attend(seq, q[first:end], k, v).to(q.dtype)
        self.num_runs += 1
        return out

    def attend(self, seq, q, k, v):
        """One sequence: the queries stand at its end."""
        plan = self.planned
        pages = plan["indices"][plan["pages"][seq] : plan["pages"][seq + 1]].long()
        length = (len(pages) - 1) * plan["page_size"] + plan["last"][seq]
        k, v = (
            cache.to(torch.float64)[pages].transpose(1, 2).flatten(0, 1)[:length]
            for cache in (k, v)
        )
        group = plan["num_qo_heads"] // plan["num_kv_heads"]
        k, v = (part.repeat_interleave(group, 1) for part in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q.double(), k) * plan["sm_scale"]
        if plan["logits_soft_cap"] > 0:
            scores = plan["logits_soft_cap"] * torch.tanh(scores / plan["logits_soft_cap"])
        position = length - len(q) + torch.arange(len(q))[:, None]
        keys = torch.arange(length)
        visible = keys <= position if plan["causal"] else torch.ones_like(keys <= position)
        if plan.get("window_left", -1) >= 0:
            visible &= keys >= position - plan["window_left"]
        weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, v)


class BatchPrefillWithPagedKVCacheWrapper(Wrapper):
    module = "prefill"

    def plan(self, *args, **kwargs) -> None:
        given = bound((self.module, type(self).__name__, "plan"), args, kwargs)
        starts = given["qo_indptr"]
        assert starts.dtype == torch.int32
        names = {"paged_kv_indices": "indices", "paged_kv_last_page_len": "last_page_len"}
        names["head_dim_qk"] = "head_dim"
        given = {"causal": False} | {names.get(name, name): each for name, each in given.items()}
        self.take(given, starts.tolist(), given["paged_kv_indptr"])


class BatchDecodeWithPagedKVCacheWrapper(Wrapper):
    module = "decode"

    def plan(self, *args, **kwargs) -> None:
        given = bound((self.module, type(self).__name__, "_plan_impl"), args, kwargs)
        num_seqs = len(given["last_page_len"])
        # One query sees every key that there is.
        self.take(given | {"causal": True}, list(range(num_seqs + 1)), given["indptr"])


def stand_in() -> ModuleType:
    """The module."""
    module = ModuleType("flashinfer")
    module.BatchPrefillWithPagedKVCacheWrapper = BatchPrefillWithPagedKVCacheWrapper
    module.BatchDecodeWithPagedKVCacheWrapper = BatchDecodeWithPagedKVCacheWrapper
    Wrapper.made.clear()
    return module
