"""The provider ``flashinfer`` without a GPU: what FlashInfer is asked for, and what comes of it."""

from __future__ import annotations

import ast
import json
import random
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("octavo_torch", reason="octavo-torch is not installed")
torch = pytest.importorskip("torch")

import stand_in_flashinfer  # noqa: E402

from octavo import LLM, SamplingParams  # noqa: E402
from octavo.api import AttentionParams, KVSpec  # noqa: E402
from octavo.errors import BackendError, UsageError  # noqa: E402
from octavo.testing.conform import Planned, all_checks, plan_cases, run_case  # noqa: E402
from octavo.testing.subject import Subject  # noqa: E402
from octavo.testing.tiny_models import TINY_MODELS  # noqa: E402
from octavo_torch import attention_providers, flashinfer_attention  # noqa: E402
from octavo_torch.caches import make_cache  # noqa: E402
from octavo_torch.plan import TorchPlan  # noqa: E402

CPU = torch.device("cpu")
IS_INSTALLED = find_spec("flashinfer") is not None
OWN = ("ops.sinks", "ops.sliding")  # of which FlashInfer gets nothing
CHECKS = ("ops.attend", "ops.paged", "ops.rope_attend", "ops.head", "ops.sliding", "ops.sinks")
CHECKS += ("ops.attention", "ops.non_causal", "ops.kv_dtypes", "paging.")


@pytest.fixture
def offered(monkeypatch):
    """The provider is one of the backend ``torch``, too."""
    flashinfer = next(
        spec for spec in attention_providers.attention_specs() if spec.name == "flashinfer"
    )
    own = attention_providers._spec("flashinfer", "torch", flashinfer.load, flashinfer.supports)
    monkeypatch.setattr("octavo_torch.plugin.attention_specs", lambda: [own])
    monkeypatch.setattr(flashinfer_attention, "HEAD_DIMS", range(1, 1025))


@pytest.fixture
def library(offered, monkeypatch):
    """A FlashInfer that is installed and has every kernel."""
    module = stand_in_flashinfer.stand_in()
    for name, each in (("flashinfer", module), ("flashinfer_jit_cache", module)):
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, each)
    return module


def engine(tmp_path, family="llama", **options):
    (tmp_path / "config.json").write_text(json.dumps(TINY_MODELS[family].config), "utf-8")
    defaults = {"load_format": "dummy", "max_model_len": 96, "quiet": True, "backend": "torch"}
    defaults |= {"max_num_seqs": 4, "max_num_batched_tokens": 24, "dtype": "bfloat16"}
    return LLM(str(tmp_path), "cpu", **{**defaults, **options})


@pytest.mark.parametrize("prefix", CHECKS)
def test_the_conformance_suite_s_cases_come_out_right(library, prefix, monkeypatch):
    """In float32 too, which the suite's cases are in, and FlashInfer is not."""
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    monkeypatch.setattr(flashinfer_attention, "_DTYPES", dtypes)
    monkeypatch.setattr(stand_in_flashinfer.Wrapper, "dtypes", dtypes)
    subject = Subject.installed("torch", "cpu", attention_backend="flashinfer")
    chosen = [check for check in all_checks() if check.id.startswith(prefix)]
    found = [
        run_case(subject, each) if isinstance(each, Planned) else each
        for each in plan_cases(subject, chosen, quick=True)
    ]
    subject.close()
    assert [(each.id, each.message) for each in found if each.status in {"failed", "blocked"}] == []
    assert any(each.status == "passed" for each in found)
    made = stand_in_flashinfer.Wrapper.made
    assert (sum(wrapper.num_runs for wrapper in made) > 0) == (prefix not in OWN)


def answers(llm):
    draw = random.Random(1)
    drawn = [draw.choices(range(60), k=draw.randint(1, 40)) for _ in range(9)]
    prompts = [{"prompt_token_ids": prompt} for prompt in drawn]
    params = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    llm.close()
    return [output.outputs[0].token_ids for output in outputs]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_step_is_planned_once_for_all_layers(library, family, tmp_path, monkeypatch):
    dtypes = (torch.float32,)
    monkeypatch.setattr(flashinfer_attention, "_DTYPES", dtypes)
    monkeypatch.setattr(stand_in_flashinfer.Wrapper, "dtypes", dtypes)
    expected = answers(engine(tmp_path, family, dtype="float32"))
    llm = engine(tmp_path, family, dtype="float32", attention_backend="flashinfer")
    served = {each.op: each.implementation for each in llm.loaded.bindings}
    assert served["paged_attention"] == served["rope_attend"] == "flashinfer"
    assert answers(llm) == expected
    specs = llm.loaded.engine.model.kv_specs("float32")
    num_layers = sum(spec.window is None for spec in specs)
    made = stand_in_flashinfer.Wrapper.made
    assert {wrapper.module for wrapper in made} == {"prefill", "decode"}
    for wrapper in made:
        assert wrapper.num_runs == num_layers * wrapper.num_plans > 0


CASES = {
    "served": {},
    "float8 cache": {"kv_dtype": "float8_e5m2"},
    "all keys": {"params": AttentionParams(0.1, causal=False)},
    "sinks": {"sinks": torch.zeros(4)},
    "window": {"params": AttentionParams(0.1, window=5)},
    "int8 cache": {"kv_dtype": "int8"},
    "unlike cache": {"kv_dtype": "float16"},
    "scales": {"scale": torch.ones(2)},
    "float32": {"dtype": torch.float32, "kv_dtype": "float32"},
    "heads of 96": {"head_dim": 96},
    "recorded": {"plan": {"host_query_start": (), "host_seq_lens": ()}},
}
SERVED = ("served", "float8 cache", "all keys")


@pytest.mark.parametrize("case", CASES)
def test_what_flashinfer_has_nothing_for_is_the_backend_s_own(case):
    """Layer by layer and step by step: nothing of it is lost, and nothing is computed wrongly."""
    given = {"kv_dtype": "bfloat16", "dtype": torch.bfloat16, "head_dim": 64, "plan": {}}
    given |= CASES[case]
    served_by = []
    attention = flashinfer_attention.FlashInferAttention(
        stand_in_flashinfer.stand_in(), torch.device("cpu"), lambda *_: served_by.append("own")
    )
    cache = make_cache(KVSpec("full", 2, given["head_dim"], given["kv_dtype"]), 4, 16, CPU)
    cache = replace(cache, k_scale=given.get("scale", cache.k_scale))
    sizes = {"num_seqs": 1, "max_query_len": 1, "max_seq_len": 3, "block_size": 16}
    host = {"host_query_start": (0, 1), "host_seq_lens": (3,)} | given["plan"]
    ones = torch.ones(1, dtype=torch.int32)
    plan = TorchPlan(ones[None], ones, ones, ones, ones, ones, **sizes, **host)
    q = torch.zeros(1, 4, given["head_dim"], dtype=given["dtype"])
    params = given.get("params", AttentionParams(0.1))
    attention.paged_attention(q, cache, plan, params, given.get("sinks"))
    assert served_by == ([] if case in SERVED else ["own"])


ABSENT = "FlashInfer is not installed (pip install flashinfer-python)"
NO_KERNELS = "neither compiled kernels (flashinfer install-jit-cache-wheel) nor nvcc"


@pytest.mark.skipif(IS_INSTALLED, reason="FlashInfer is installed")
def test_without_flashinfer_one_line_says_what_to_install(offered, tmp_path):
    with pytest.raises(UsageError) as refused:
        engine(tmp_path, attention_backend="flashinfer")
    said = f"Attention backend 'flashinfer' cannot be used: {ABSENT}. There is flashinfer, "
    assert str(refused.value).startswith(said)


def test_without_kernels_and_compiler_it_is_not_chosen(library, tmp_path, monkeypatch):
    monkeypatch.setattr(attention_providers, "find_spec", {"flashinfer": 1}.get)
    monkeypatch.setattr(attention_providers, "_has_nvcc", lambda: False)
    with pytest.raises(UsageError) as refused:
        engine(tmp_path, attention_backend="flashinfer")
    assert NO_KERNELS in str(refused.value)


def test_a_model_with_heads_of_other_sizes_is_refused(library, tmp_path, monkeypatch):
    monkeypatch.setattr(flashinfer_attention, "HEAD_DIMS", (64, 128, 256))
    said = "does not support the model: its heads have 16 features; FlashInfer serves 64, 128, 256"
    with pytest.raises(UsageError, match=said):
        engine(tmp_path, attention_backend="flashinfer")


def test_a_kernel_that_cannot_be_compiled_is_one_message(library, tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise RuntimeError("Ninja build failed. Ninja output:\nnvcc: not found")

    monkeypatch.setattr(library.BatchPrefillWithPagedKVCacheWrapper, "plan", fail)
    llm = engine(tmp_path, attention_backend="flashinfer")
    said = r"no kernel for heads of 16 .* --attention-backend triton"
    with pytest.raises(BackendError, match=said):
        answers(llm)
    llm.close()


@pytest.mark.skipif(not IS_INSTALLED, reason="FlashInfer is not installed")
def test_the_stand_in_takes_what_flashinfer_takes():
    """Read off its source: importing it asks for a GPU's libraries."""
    folder = Path(find_spec("flashinfer").submodule_search_locations[0])
    for (module, name, method), names in stand_in_flashinfer.SIGNATURES.items():
        tree = ast.parse((folder / f"{module}.py").read_text("utf-8"))
        (found,) = (each for each in tree.body if getattr(each, "name", "") == name)
        arguments = [each for each in found.body if getattr(each, "name", "") == method][-1].args
        positional, _, keyword = names.partition("*")
        assert [each.arg for each in arguments.args[1:]] == positional.split()
        assert [each.arg for each in arguments.kwonlyargs] == keyword.split()
