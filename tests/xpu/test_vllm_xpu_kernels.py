"""The provider ``vllm-xpu-kernels`` without a GPU: what it is asked for, and what comes of it."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("octavo_xpu", reason="octavo-xpu is not installed")
torch = pytest.importorskip("torch")

import stand_in_vllm_xpu_kernels  # noqa: E402

from octavo import LLM, SamplingParams  # noqa: E402
from octavo.api import AttentionParams, KVSpec, UsageError  # noqa: E402
from octavo.testing.conform import Planned, all_checks, plan_cases, run_case  # noqa: E402
from octavo.testing.subject import Subject  # noqa: E402
from octavo.testing.tiny_models import TINY_MODELS  # noqa: E402
from octavo_torch.caches import make_cache  # noqa: E402
from octavo_torch.plan import TorchPlan  # noqa: E402
from octavo_xpu import attention_providers, vllm_attention, vllm_trial  # noqa: E402

CPU = torch.device("cpu")
IS_INSTALLED = find_spec("vllm_xpu_kernels") is not None
INTERFACE = "vllm_xpu_kernels.flash_attn_interface"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OWN = ("ops.sinks", "ops.sliding", "ops.non_causal")  # of which the library gets nothing
CHECKS = (*OWN, "ops.attend", "ops.paged", "ops.rope_attend", "ops.head", "ops.attention")
CHECKS += ("paging.",)


@pytest.fixture
def library(monkeypatch):
    """A stand-in that is installed, and the provider one of the backend ``torch``, too."""
    library = stand_in_vllm_xpu_kernels.Library()
    for name, module in stand_in_vllm_xpu_kernels.stand_in(library).items():
        monkeypatch.setitem(sys.modules, name, module)
    say_version(monkeypatch, "0.1.16.2")
    (spec,) = (each for each in attention_providers.attention_specs() if each.name.startswith("v"))
    monkeypatch.setattr(
        "octavo_torch.plugin.attention_specs", lambda: [replace(spec, backend="torch")]
    )
    return library


def say_version(monkeypatch, version):
    known = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: version if name == "vllm-xpu-kernels" else known(name)
    )


def take_all(monkeypatch, library):
    """The suite's sizes, and float32, too: its cases are small."""
    sizes = range(1, 513)
    monkeypatch.setattr(vllm_attention, "_DTYPES", DTYPES)
    monkeypatch.setattr(vllm_attention, "HEAD_DIMS", sizes)
    monkeypatch.setattr(vllm_attention, "_BLOCK_SIZES", sizes)
    library.dtypes, library.head_dims, library.block_sizes = DTYPES, sizes, sizes
    library.alignment = 1


@pytest.mark.parametrize("prefix", CHECKS)
def test_the_conformance_suite_s_cases_come_out_right(library, prefix, monkeypatch):
    take_all(monkeypatch, library)
    monkeypatch.setattr(vllm_trial, "try_attention", lambda *_: None)
    subject = Subject.installed("torch", "cpu", attention_backend="vllm-xpu-kernels")
    chosen = [check for check in all_checks() if check.id.startswith(prefix)]
    found = [
        run_case(subject, each) if isinstance(each, Planned) else each
        for each in plan_cases(subject, chosen, quick=True)
    ]
    subject.close()
    assert [(each.id, each.message) for each in found if each.status in {"failed", "blocked"}] == []
    assert any(each.status == "passed" for each in found)
    assert bool(library.calls) == (prefix not in OWN)


def engine(tmp_path, **options):
    (tmp_path / "config.json").write_text(json.dumps(TINY_MODELS["llama"].config), "utf-8")
    return LLM(
        str(tmp_path), "cpu", backend="torch", load_format="dummy", dtype="float32", block_size=16,
        max_model_len=96, max_num_seqs=4, max_num_batched_tokens=24, quiet=True, **options,
    )  # fmt: skip


def test_an_engine_s_tokens_are_those_of_torch(library, tmp_path, monkeypatch):
    take_all(monkeypatch, library)

    def answers(**options):
        llm = engine(tmp_path, **options)
        prompts = [{"prompt_token_ids": [*range(1, length)]} for length in (2, 9, 33, 50)]
        params = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
        outputs = llm.generate(prompts, params, use_tqdm=False)
        llm.close()
        return [output.outputs[0].token_ids for output in outputs]

    expected = answers()
    assert library.calls == []
    assert answers(attention_backend="vllm-xpu-kernels") == expected
    assert {1, *range(2, 20)} & {*library.calls} > {1}


CASES = {
    "served": {},
    "all keys": {"params": AttentionParams(0.1, causal=False)},
    "sinks": {"sinks": torch.zeros(4)},
    "window": {"params": AttentionParams(0.1, window=5)},
    "soft cap": {"params": AttentionParams(0.1, soft_cap=5.0)},
    "int8 cache": {"kv_dtype": "int8"},
    "unlike cache": {"kv_dtype": "float16"},
    "float32": {"dtype": torch.float32, "kv_dtype": "float32"},
    "heads of 80": {"head_dim": 80},
    "blocks of 8": {"block_size": 8},
    "recorded": {"plan": {"host_query_start": (), "host_seq_lens": ()}},
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_library_has_nothing_for_is_the_backend_s_own(case):
    given = {"kv_dtype": "bfloat16", "dtype": torch.bfloat16, "head_dim": 64, "plan": {}}
    given |= {"block_size": 16} | CASES[case]
    served_by = []
    library = stand_in_vllm_xpu_kernels.Library()
    attention = vllm_attention.VllmAttention(
        library.flash_attn_varlen_func, lambda *_: served_by.append("own")
    )
    block_size = given["block_size"]
    cache = make_cache(KVSpec("full", 2, given["head_dim"], given["kv_dtype"]), 4, block_size, CPU)
    sizes = {"num_seqs": 1, "max_query_len": 1, "max_seq_len": 3, "block_size": block_size}
    host = {"host_query_start": (0, 1), "host_seq_lens": (3,)} | given["plan"]
    ones = torch.ones(1, dtype=torch.int32)
    starts = torch.tensor([0, 1], dtype=torch.int32)
    plan = TorchPlan(ones[None], ones, starts, 3 * ones, ones, ones, **sizes, **host)
    q = torch.zeros(1, 4, given["head_dim"], dtype=given["dtype"])
    attention.paged_attention(
        q, cache, plan, given.get("params", AttentionParams(0.1)), given.get("sinks")
    )
    is_served = case == "served"
    assert (served_by, len(library.calls)) == (([], 1) if is_served else (["own"], 0))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda patch, _: say_version(patch, "0.1.11.1"), "0.1.11.1 is too old: 0.1.12 and later"),
        (lambda _, library: setattr(library, "factor", 1.1), r"is off by [0-9.]+ from torch's att"),
        (lambda _, library: setattr(library, "factor", float("nan")), r"is off by nan from torch"),
        (
            lambda patch, library: patch.setattr(library, "check", not_here),
            r"cannot run on cpu: no Xe2\. There is",
        ),
        (
            lambda patch, _: patch.setattr(sys.modules[INTERFACE], "FA2_AVAILABLE", False),
            "was built for another torch or oneAPI: None",
        ),
    ],
    ids=["too old", "off", "nan", "other GPU", "other torch"],
)
def test_a_library_that_cannot_serve_is_refused_in_one_line(
    library, break_it, said, tmp_path, monkeypatch
):
    take_all(monkeypatch, library)
    break_it(monkeypatch, library)
    with pytest.raises(UsageError, match=said):
        engine(tmp_path, attention_backend="vllm-xpu-kernels")


def not_here(_given):
    raise RuntimeError("no Xe2\nsecond line")


@pytest.mark.skipif(IS_INSTALLED, reason="vllm-xpu-kernels is installed")
def test_without_it_one_line_says_what_to_install(library, tmp_path, monkeypatch):
    take_all(monkeypatch, library)
    monkeypatch.delitem(sys.modules, "vllm_xpu_kernels")
    said = r"is not installed \(pip install vllm-xpu-kernels\)"
    with pytest.raises(UsageError, match=said):
        engine(tmp_path, attention_backend="vllm-xpu-kernels")


def test_a_model_with_heads_of_other_sizes_is_refused(library, tmp_path):
    said = "not support the model: its heads have 16 features; it serves 64, 96, 128, 192, 256 wit"
    with pytest.raises(UsageError, match=said):
        engine(tmp_path, attention_backend="vllm-xpu-kernels")


@pytest.mark.skipif(not IS_INSTALLED, reason="vllm-xpu-kernels is not installed")
def test_the_stand_in_takes_what_the_library_takes():
    """Read off its source: importing it asks for a GPU's libraries."""
    folder = Path(find_spec("vllm_xpu_kernels").submodule_search_locations[0])
    tree = ast.parse((folder / "flash_attn_interface.py").read_text("utf-8"))
    (found,) = (each for each in tree.body if getattr(each, "name", "") == "flash_attn_varlen_func")
    assert [each.arg for each in found.args.args] == stand_in_vllm_xpu_kernels.NAMES
