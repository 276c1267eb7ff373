"""A step over a paged cache, made from dense sequences, with everything unowned poisoned by NaN."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from octavo.batch import GroupBatch, StepBatch

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class Case:
    """Sequences as (keys before this step, tokens in this step)."""

    seqs: tuple[tuple[int, int], ...]
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 4
    window: int | None = None
    soft_cap: float | None = None
    sinks: bool = False
    causal: bool = True
    shuffled: bool = True
    padded_tokens: int = 0
    padded_seqs: int = 0
    kv_dtype: str | None = None  # None: as q

    @property
    def label(self) -> str:
        default = Case(self.seqs)
        changed = [
            f"{name}={value}"
            for name, value in vars(self).items()
            if name != "seqs" and value != getattr(default, name)
        ]
        lengths = "+".join(f"{past}:{new}" for past, new in self.seqs)
        return " ".join([lengths, *changed])


@dataclass(frozen=True)
class PagedStep:
    """What a backend gets, and the dense sequences that it stands for."""

    batch: StepBatch
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    k_cache: np.ndarray
    v_cache: np.ndarray
    sinks: np.ndarray | None
    dense: list[tuple[np.ndarray, np.ndarray]]  # k, v of each sequence, as the cache rounds them


def build(case: Case, dtype: str, seed: int = 0) -> PagedStep:
    rng = np.random.default_rng(seed)
    of, kv_of = DTYPES[dtype], DTYPES[case.kv_dtype or dtype]
    size = case.block_size
    lengths = [past + new for past, new in case.seqs]
    needed = [-(-length // size) for length in lengths]
    num_blocks = 1 + sum(needed) + 2
    order = np.arange(1, num_blocks)
    if case.shuffled:
        order = rng.permutation(order)
    cache_shape = (num_blocks, size, case.kv_heads, case.head_dim)
    k_cache, v_cache = (np.full(cache_shape, np.nan, kv_of) for _ in range(2))

    table = np.zeros((len(lengths) + case.padded_seqs, max(needed) + 1), np.int32)
    positions, token_seqs, slots, new_k, new_v, dense = [], [], [], [], [], []
    next_block = 0
    for seq, ((past, _), length) in enumerate(zip(case.seqs, lengths, strict=True)):
        blocks = order[next_block : next_block + needed[seq]]
        next_block += needed[seq]
        table[seq, : len(blocks)] = blocks
        k, v = (
            rng.standard_normal((length, case.kv_heads, case.head_dim)).astype(of).astype(kv_of)
            for _ in range(2)
        )
        dense.append((k, v))
        behind = 0 if case.window is None or not case.causal else max(0, past - case.window + 1)
        for position in range(length):
            slot = int(blocks[position // size]) * size + position % size
            if behind <= position < past:
                k_cache[slot // size, slot % size] = k[position]
                v_cache[slot // size, slot % size] = v[position]
            elif position >= past:
                slots.append(slot)
                positions.append(position)
                token_seqs.append(seq)
                new_k.append(k[position].astype(of))
                new_v.append(v[position].astype(of))
        for column in range(behind // size):  # blocks behind the window may have been given back
            table[seq, column] = 0
    starts = np.cumsum([0] + [new for _, new in case.seqs] + [0] * case.padded_seqs)
    tokens, padding = len(slots), case.padded_tokens
    pad_seq = len(table) - 1
    k_rows = np.concatenate([np.stack(new_k), np.full((padding, *new_k[0].shape), np.nan, of)])
    v_rows = np.concatenate([np.stack(new_v), np.full((padding, *new_v[0].shape), np.nan, of)])
    batch = StepBatch(
        token_ids=np.zeros(tokens + padding, np.int32),
        positions=np.array(positions + [0] * padding, np.int32),
        token_seqs=np.array(token_seqs + [pad_seq] * padding, np.int32),
        query_start=starts.astype(np.int32),
        seq_lens=np.array(lengths + [0] * case.padded_seqs, np.int32),
        context_lens=np.array([p + 1 for p in positions] + [1] * padding, np.int32),
        logits_rows=(starts[1 : len(lengths) + 1] - 1).astype(np.int32),
        groups=(GroupBatch(table, np.array(slots + [0] * padding, np.int32)),),
    )
    q = rng.standard_normal((tokens + padding, case.heads, case.head_dim)).astype(of)
    sinks = rng.standard_normal(case.heads).astype(of) if case.sinks else None
    return PagedStep(batch, q, k_rows, v_rows, k_cache, v_cache, sinks, dense)


CASES = (
    Case(((0, 1),)),
    Case(((0, 4),)),
    Case(((3, 1),), heads=4, kv_heads=4),
    Case(((4, 1),), heads=8, kv_heads=1),
    Case(((16, 1), (15, 1), (17, 1), (0, 1))),
    Case(((0, 9), (7, 1), (5, 3), (30, 1)), heads=9, kv_heads=3, head_dim=64, block_size=16),
    Case(((33, 1), (2, 70), (0, 33)), heads=8, kv_heads=2, head_dim=80, block_size=16),
    Case(((130, 1), (129, 31)), heads=8, kv_heads=1, head_dim=128, block_size=32),
    Case(((300, 1), (1, 1), (40, 5)), block_size=16, shuffled=False),
    Case(((21, 1), (13, 6), (0, 11)), window=5),
    Case(((21, 1), (13, 6), (0, 11)), window=1),
    Case(((3, 1), (0, 5)), window=64),
    Case(((45, 30), (40, 1)), window=20, block_size=1),
    Case(((21, 1), (6, 6)), soft_cap=0.5),
    Case(((21, 1), (6, 6)), sinks=True),
    Case(((21, 2), (30, 1), (2, 1)), sinks=True, soft_cap=2.0, window=7, heads=8, kv_heads=1),
    Case(((0, 13), (0, 1)), causal=False),
    Case(((0, 13), (0, 40)), causal=False, window=4),
    Case(((9, 1), (3, 4)), padded_tokens=3, padded_seqs=2),
    Case(((9, 1), (3, 4)), padded_tokens=1, padded_seqs=1, sinks=True, window=3),
    Case(((0, 40), (63, 1)), kv_dtype="float16"),
    Case(((0, 40), (63, 1)), kv_dtype="bfloat16", shuffled=False),
)
