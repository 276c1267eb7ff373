"""The op protocol: the language-model operations every backend serves, with their shapes.

Rules that hold for every op:

* pure: no hidden state and no I/O; an array passed in is not modified, save caches (below);
* a cache passed in must not be used afterwards (updated in place on some backends, donated on
  others); use the returned one;
* indices are int32; sums accumulate in float32 whatever the storage dtype; the result has the
  dtype of the first array argument unless stated otherwise;
* ``tokens``, ``rows`` and ``seqs`` may include padding. A padded token writes to slot 0, which
  belongs to block 0 and is never handed out; results in padded places are unspecified.

Shapes stand in the annotations (jaxtyping notation) and are enforced in tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from octavo.step_trees import step_tree

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

__all__ = [
    "Activation",
    "Array",
    "AttentionParams",
    "AttentionPlan",
    "Cache",
    "LinearWeight",
    "Ops",
    "RopeSpec",
    "SampleResult",
    "SamplingBatch",
]


@runtime_checkable
class Array(Protocol):
    """What model code may do with an array: arithmetic, static slices, reshape, shape, dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Static: known while a step is traced."""
        ...

    @property
    def dtype(self) -> Any:
        """The array library's own dtype object."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...
    def __add__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __len__(self) -> int: ...
    @property
    def reshape(self) -> Callable[..., Any]:
        """``reshape(*shape)``; a property only so that every library's signature fits."""
        ...


LinearWeight: TypeAlias = Any
"""A prepared weight (and bias), opaque: made by ``Backend.put_linear``, read by ``Ops.linear``."""

Cache: TypeAlias = Any
"""One layer's keys and values, opaque: made by ``Backend.make_kv``."""

Activation = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True)
class AttentionParams:
    """Static attention settings of one layer."""

    scale: float
    window: int | None = None  # a query at p sees keys at p - window < k <= p
    soft_cap: float | None = None  # cap * tanh(score / cap)
    causal: bool = True


@step_tree
@dataclass(frozen=True)
class AttentionPlan:
    """Portable attention metadata of one KV group for one step; a backend may return its own."""

    block_table: Int[Array, "seqs blocks"]
    slots: Int[Array, "tokens"]  # where each token's K and V go: block * block_size + offset
    token_seqs: Int[Array, "tokens"]  # which sequence (row of block_table) a token belongs to
    positions: Int[Array, "tokens"]  # position of each token in its sequence
    query_start: Int[Array, "seqs_plus_1"]  # token range of each sequence
    seq_lens: Int[Array, "seqs"]  # length of each sequence after this step; 0 for padding


RopeKind = Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position embedding, resolved at load so that a step only multiplies.

    ``inv_freq`` are the inverse frequencies (radians per position) after scaling. Two kinds
    depend on a token's context length L = max(position + 1, prompt length): ``dynamic``
    (for L > original_max_len the base is recomputed from L and ``factor``) and ``longrope``
    (``long_inv_freq`` replaces ``inv_freq``). ``attention_factor`` multiplies cos and sin.
    """

    kind: RopeKind
    rotary_dim: int
    base: float
    inv_freq: tuple[float, ...]  # [rotary_dim / 2]
    attention_factor: float = 1.0
    factor: float = 1.0
    original_max_len: int = 0
    long_inv_freq: tuple[float, ...] | None = None


@step_tree(static=("num_logprobs", "all_greedy", "plain", "truncated"))
@dataclass(frozen=True)
class SamplingBatch:
    """What sampling needs for each row of logits; built on the host once a step.

    Sparse per-row adjustments come as parallel arrays (row, token id, value); they may be empty.
    """

    temperature: Float[Array, "rows"]  # 0 means greedy
    top_k: Int[Array, "rows"]  # 0 means off
    top_p: Float[Array, "rows"]  # 1 means off
    min_p: Float[Array, "rows"]  # 0 means off
    uniform: Float[Array, "rows"]  # in [0, 1), drawn on the host from Philox
    repetition_penalty: Float[Array, "rows"]
    presence_penalty: Float[Array, "rows"]
    frequency_penalty: Float[Array, "rows"]
    seen_rows: Int[Array, "seen"]  # tokens that the penalties look at
    seen_ids: Int[Array, "seen"]
    seen_counts: Int[Array, "seen"]  # occurrences in the output; 0 = in the prompt only
    bias_rows: Int[Array, "biases"]  # logit_bias, and -inf for tokens that are not allowed
    bias_ids: Int[Array, "biases"]
    bias_values: Float[Array, "biases"]
    mask: Bool[Array, "rows vocab"] | None  # True = allowed; the hook for structured output
    num_logprobs: int  # static: how many top log-probabilities to return; -1 = none at all
    all_greedy: bool  # static: every row has temperature 0
    plain: bool  # static: no penalty, bias or mask touches any row
    truncated: bool = True  # static: top_k or top_p is on in some row


@step_tree
@dataclass(frozen=True)
class SampleResult:
    """Sampled tokens; log-probabilities are of the raw logits, before any adjustment."""

    token_ids: Int[Array, "rows"]
    logprobs: Float[Array, "rows"] | None  # of the sampled token; None if num_logprobs < 0
    ranks: Int[Array, "rows"] | None  # 1 = the most likely
    top_ids: Int[Array, "rows k"] | None  # k = num_logprobs, most likely first
    top_logprobs: Float[Array, "rows k"] | None
    valid: Bool[Array, "rows"] | None = None  # False: NaN logits or nothing allowed; ignore the row


class Ops(Protocol):
    """The op set a backend exposes as ``Backend.ops``; ``PortableOps`` serves every one."""

    def embed(
        self, token_ids: Int[Array, "tokens"], table: Float[Array, "vocab hidden"]
    ) -> Float[Array, "tokens hidden"]:
        """Rows of the embedding table."""
        ...

    def linear(
        self, x: Float[Array, "tokens in_features"], weight: LinearWeight
    ) -> Float[Array, "tokens out_features"]:
        """``x @ weight.T + bias`` for a prepared weight."""
        ...

    def rms_norm(
        self, x: Float[Array, "*batch dim"], weight: Float[Array, "dim"], eps: float
    ) -> Float[Array, "*batch dim"]:
        """``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""
        ...

    def add_rms_norm(
        self,
        x: Float[Array, "tokens dim"],
        residual: Float[Array, "tokens dim"],
        weight: Float[Array, "dim"],
        eps: float,
    ) -> tuple[Float[Array, "tokens dim"], Float[Array, "tokens dim"]]:
        """``(rms_norm(x + residual), x + residual)``."""
        ...

    def layer_norm(
        self,
        x: Float[Array, "*batch dim"],
        weight: Float[Array, "dim"],
        bias: Float[Array, "dim"] | None,
        eps: float,
    ) -> Float[Array, "*batch dim"]:
        """Mean and variance normalisation over the last axis."""
        ...

    def rope_table(
        self,
        positions: Int[Array, "tokens"],
        context_lens: Int[Array, "tokens"],
        spec: RopeSpec,
    ) -> tuple[Float[Array, "tokens half"], Float[Array, "tokens half"]]:
        """(cos, sin) in float32, computed once a step for each RopeSpec; half = rotary_dim / 2."""
        ...

    def rope(
        self,
        x: Float[Array, "tokens heads head_dim"],
        cos: Float[Array, "tokens half"],
        sin: Float[Array, "tokens half"],
    ) -> Float[Array, "tokens heads head_dim"]:
        """Rotate the first ``2 * half`` features, pairing i with i + half (the Llama layout)."""
        ...

    def silu_mul(self, gate_up: Float[Array, "tokens two_inner"]) -> Float[Array, "tokens inner"]:
        """``silu(gate) * up`` where gate is the first half of the features and up the second."""
        ...

    def gelu_mul(
        self, gate_up: Float[Array, "tokens two_inner"], *, tanh: bool
    ) -> Float[Array, "tokens inner"]:
        """``gelu(gate) * up``; tanh chooses the tanh approximation over erf."""
        ...

    def gelu(self, x: Float[Array, "tokens inner"], *, tanh: bool) -> Float[Array, "tokens inner"]:
        """GELU; tanh chooses the tanh approximation over erf."""
        ...

    def soft_cap(self, x: Float[Array, "*batch"], cap: float) -> Float[Array, "*batch"]:
        """``cap * tanh(x / cap)``."""
        ...

    def write_kv(
        self,
        cache: Cache,
        k: Float[Array, "tokens kv_heads head_dim"],
        v: Float[Array, "tokens kv_heads head_dim"],
        plan: Any,
    ) -> Cache:
        """Store K and V of this step's tokens at the plan's slots. ``cache`` is dead afterwards.

        What is beyond the range of an 8-bit float saturates: neither NaN nor infinity.
        """
        ...

    def paged_attention(
        self,
        q: Float[Array, "tokens heads head_dim"],
        cache: Cache,
        plan: Any,
        params: AttentionParams,
        sinks: Float[Array, "heads"] | None = None,
    ) -> Float[Array, "tokens heads head_dim"]:
        """Attention of each token over its sequence's cached keys, this step's included.

        Query head h reads KV head ``h // (heads // kv_heads)``. ``sinks`` are per-head logits that
        join the softmax denominator and carry no value (gpt-oss).
        """
        ...

    def attend(
        self,
        q: Float[Array, "tokens heads head_dim"],
        k: Float[Array, "tokens kv_heads head_dim"],
        v: Float[Array, "tokens kv_heads head_dim"],
        cache: Cache,
        plan: Any,
        params: AttentionParams,
        sinks: Float[Array, "heads"] | None = None,
    ) -> tuple[Float[Array, "tokens heads head_dim"], Cache]:
        """Composite: ``write_kv`` then ``paged_attention``. The argument ``cache`` is dead."""
        ...

    def rope_attend(
        self,
        q: Float[Array, "tokens heads head_dim"],
        k: Float[Array, "tokens kv_heads head_dim"],
        v: Float[Array, "tokens kv_heads head_dim"],
        cos: Float[Array, "tokens half"],
        sin: Float[Array, "tokens half"],
        cache: Cache,
        plan: Any,
        params: AttentionParams,
        sinks: Float[Array, "heads"] | None = None,
    ) -> tuple[Float[Array, "tokens heads head_dim"], Cache]:
        """Composite: ``rope`` of q and of k, then ``attend``. The argument ``cache`` is dead."""
        ...

    def mlp(
        self,
        x: Float[Array, "tokens hidden"],
        gate_up: LinearWeight,
        down: LinearWeight,
        activation: Activation,
    ) -> Float[Array, "tokens hidden"]:
        """Composite: gated feed-forward, ``down(act(gate) * up)``."""
        ...

    def take_rows(
        self, x: Float[Array, "tokens dim"], rows: Int[Array, "rows"]
    ) -> Float[Array, "rows dim"]:
        """Rows of x by index (the positions whose logits are wanted)."""
        ...

    def fill_tokens(
        self,
        token_ids: Int[Array, "tokens"],
        sampled: Int[Array, "rows"],
        sources: Int[Array, "tokens"],
    ) -> Int[Array, "tokens"]:
        """``sampled[sources - 1]`` where sources > 0, and ``token_ids`` elsewhere.

        For a step that is launched before the host has read what the step before it sampled.
        """
        ...

    def sample(self, logits: Float[Array, "rows vocab"], sampling: SamplingBatch) -> SampleResult:
        """One token per row of float32 logits; see SamplingBatch and octavo.ops.sampling."""
        ...

    def token_logprobs(
        self, logits: Float[Array, "rows vocab"], token_ids: Int[Array, "rows"], num_logprobs: int
    ) -> SampleResult:
        """Log-probabilities and ranks of given tokens (prompt_logprobs); token_ids pass through."""
        ...

    def all_reduce(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Sum over the tensor-parallel group; the identity on one device."""
        ...
