"""Steps of every family stay on a fake ``xpu``, and nothing in them makes the host wait."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("octavo_xpu", reason="octavo-xpu is not installed")
torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from fake_xpu import XPU, fake_xpu  # noqa: E402

from octavo import LLM, SamplingParams  # noqa: E402
from octavo.api import AttentionParams, DeviceInfo, KVSpec, Probe  # noqa: E402
from octavo.errors import OctavoError  # noqa: E402
from octavo.testing.tiny_models import TINY_MODELS  # noqa: E402
from octavo_torch.caches import make_cache  # noqa: E402
from octavo_torch.plan import TorchPlan  # noqa: E402
from octavo_torch.triton_ops import TritonOps  # noqa: E402
from octavo_xpu.vllm_attention import VllmAttention  # noqa: E402

SAMPLING = (
    {"temperature": 0},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 5, "min_p": 0.02, "n": 2},
    {"temperature": 0.7, "logprobs": 3, "prompt_logprobs": 1},
    {"temperature": 0.7, "presence_penalty": 0.4, "allowed_token_ids": [1, 2, 5]},
)
PARAMS = [SamplingParams(max_tokens=3, ignore_eos=True, seed=1, **each) for each in SAMPLING]
PROMPTS = [{"prompt_token_ids": [*range(1, length)]} for length in (3, 20, 60, 9)]


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """``engine(family, **options)``, on a device that there is not."""
    probed = Probe(devices=(DeviceInfo("xpu", 0, "fake"),))
    monkeypatch.setattr("octavo_xpu.probe.probe", lambda: probed)

    def engine(family, **options):
        config = json.dumps(TINY_MODELS[family].config)
        (tmp_path / "config.json").write_text(config, encoding="utf-8")
        return LLM(
            str(tmp_path), "xpu", load_format="dummy", dtype="bfloat16", block_size=16, quiet=True,
            max_model_len=96, max_num_seqs=6, max_num_batched_tokens=48, swap_space=0, **options,
        )  # fmt: skip

    return engine


def run(llm, prompts, params):
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert all(len(each.token_ids) == 3 for output in outputs for each in output.outputs)
    llm.close()


@pytest.mark.parametrize(
    ("family", "with_kernels"),
    [(family, True) for family in TINY_MODELS]
    + [(family, False) for family in ("gemma2", "gemma3", "gpt2", "qwen3")],
)
def test_steps_stay_on_the_device(engine, family, with_kernels, monkeypatch):
    """Prompts and decodes, sampled in every way; in graphs, where there are kernels."""
    with fake_xpu(monkeypatch, with_kernels=with_kernels) as watch:
        llm = engine(family, attention_backend="triton" if with_kernels else "sdpa")
        run(llm, PROMPTS, PARAMS)
    assert watch.complaints == []
    assert watch.num_operations > 100
    assert (watch.num_launches > 100) == with_kernels


@pytest.mark.parametrize(
    "options",
    [
        {"kv_cache_dtype": "int8", "quantization": "int8"},
        {"quantization": "int4", "attention_backend": "sdpa"},
    ],
    ids=["int8", "int4"],
)
def test_so_do_packed_weights_and_caches(engine, options, monkeypatch):
    with fake_xpu(monkeypatch) as watch:
        run(engine("llama-wide-heads", **options), PROMPTS[:2], PARAMS[0])
    assert watch.complaints == []


@pytest.mark.parametrize(
    ("hurt", "complaint"),
    [
        (lambda x: x.cpu().to(XPU), "on ['cpu', 'xpu:0']"),
        (lambda x: x + torch.tensor(1.0, device=XPU), "aten.lift_fresh.default"),
        (lambda x: x + torch.ones(x.shape, dtype=x.dtype), "FakeTensorDeviceMismatchError"),
        (lambda x: x * x.sum().item(), "aten._local_scalar_dense"),
        (lambda x: x[x > 0], "a shape is of the device's numbers"),
    ],
    ids=["copies", "constant", "mixed", "item", "mask"],
)
def test_what_does_not_is_found(engine, hurt, complaint, monkeypatch):
    embed = TritonOps.embed

    def embed_badly(self, token_ids, table):
        return hurt(embed(self, token_ids, table))

    monkeypatch.setattr(TritonOps, "embed", embed_badly)
    found = []
    with fake_xpu(monkeypatch) as watch:
        try:
            run(engine("llama"), PROMPTS, PARAMS)
        except OctavoError as error:  # what a step raised
            found.append(str(error))
    assert any(complaint in each for each in [*watch.complaints, *found])


def test_the_step_of_a_library_does_not_wait_either(monkeypatch):
    """What goes before vllm-xpu-kernels' own."""
    calls = []
    with fake_xpu(monkeypatch) as watch, watch.excused():
        cache = make_cache(KVSpec("full", 2, 64, "bfloat16"), 8, 16, XPU)
        numbers = torch.ones(8, dtype=torch.int32, device=XPU)
        plan = TorchPlan(
            numbers.view(2, 4), numbers[:5], numbers[:3], numbers[:2], numbers[:5], numbers[:5],
            num_seqs=2, max_query_len=4, max_seq_len=40, host_query_start=(0, 1, 5),
            host_seq_lens=(40, 20),
        )  # fmt: skip
        q = torch.ones(5, 4, 64, dtype=torch.bfloat16, device=XPU)
        attention = VllmAttention(lambda *each, **named: calls.append((each, named)), None)
        watch.is_excused = False
        attention.paged_attention(q, cache, plan, AttentionParams(0.1))
    assert watch.complaints == []
    assert [each[3] for each, _ in calls] == [1, 4]
