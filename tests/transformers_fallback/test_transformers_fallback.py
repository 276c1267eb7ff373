"""Models that Octavo has not written, through transformers' code: as transformers answers alone."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest
import torch
import transformers
from fallback_models import FALLBACK_MODELS, save, tiny_model

import tiny_tokenizers
from octavo import LLM, SamplingParams
from octavo.errors import ModelLoadError, UsageError

PROMPTS = [
    [5, 6, 7],
    [9, 9, *range(11, 26)],
    [33],
    list(range(30, 70)),
]
ANSWER_TOKENS = 6
GREEDY = SamplingParams(temperature=0, max_tokens=ANSWER_TOKENS, ignore_eos=True, logprobs=3)
TIGHT = {"block_size": 4, "max_num_seqs": 8, "max_num_batched_tokens": 8}
"""Prompts are cut into chunks of at most eight tokens, and decodes run beside them."""


def engine(folder, **options):
    defaults = {
        "model_impl": "transformers",
        "dtype": "float32",
        "kv_cache_memory_bytes": 1 << 20,
        "quiet": True,
    }
    return LLM(str(folder), device="cpu", backend="torch", **{**defaults, **options})


@functools.cache
def expected(model_type):
    """Greedy tokens and their log-probabilities, each from a forward pass over everything."""
    model, answers = tiny_model(model_type), []
    for prompt in PROMPTS:
        token_ids, logprobs = list(prompt), []
        for _ in range(ANSWER_TOKENS):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0, -1]
            best = int(logits.argmax())
            logprobs.append(logits.float().log_softmax(-1).topk(3).values.tolist())
            token_ids.append(best)
        answers.append((token_ids[len(prompt) :], logprobs))
    return answers


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A function from a model_type to its checkpoint, each written once."""
    transformers.utils.logging.disable_progress_bar()
    return functools.cache(
        lambda model_type: save(tiny_model(model_type), tmp_path_factory.mktemp(model_type))
    )


def check(outputs, model_type):
    answers = expected(model_type)[: len(outputs)]
    for output, (token_ids, logprobs) in zip(outputs, answers, strict=True):
        answer = output.outputs[0]
        assert list(answer.token_ids) == token_ids
        for seen, wanted in zip(answer.logprobs, logprobs, strict=True):
            found = sorted((entry.logprob for entry in seen.values()), reverse=True)[:3]
            assert found == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("model_type", [*FALLBACK_MODELS, "gpt2", "llama"])
def test_tokens_and_log_probabilities_are_those_of_transformers(model_type, checkpoints):
    llm = engine(checkpoints(model_type), **TIGHT)
    check(llm.generate(PROMPTS, GREEDY, use_tqdm=False), model_type)
    again = llm.generate(PROMPTS, GREEDY, use_tqdm=False)  # now from the prefix cache
    check(again, model_type)
    assert again[3].num_cached_tokens >= 32
    llm.close()


@pytest.mark.parametrize("mode", ["recompute", "swap"])
def test_preempted_requests_answer_the_same(mode, checkpoints):
    # The three prompts take 7 of the 8 blocks, and their answers 4 more.
    tight = {**TIGHT, "max_num_batched_tokens": 64, "kv_cache_memory_bytes": 9 << 10}
    llm = engine(checkpoints("granite"), **tight, preemption_mode=mode)
    check(llm.generate(PROMPTS[:3], GREEDY, use_tqdm=False), "granite")
    stats = llm.loaded.engine.stats.scheduler
    assert stats.num_recompute_preemptions + stats.num_swap_preemptions > 0
    llm.close()


def test_two_engines_in_one_process_keep_apart(checkpoints):
    engines = {name: engine(checkpoints(name)) for name in ("cohere2", "gpt_oss")}
    streams = {name: llm.stream(PROMPTS[3], GREEDY) for name, llm in engines.items()}
    token_ids = {name: [] for name in engines}
    for _ in range(ANSWER_TOKENS):
        for name, stream in streams.items():
            token_ids[name] += next(stream).outputs[0].token_ids
    assert token_ids == {name: expected(name)[3][0] for name in engines}


def test_octavos_llama_and_that_of_transformers_agree(checkpoints):
    for implementation in ("octavo", "transformers"):
        llm = engine(checkpoints("llama"), model_impl=implementation)
        check(llm.generate(PROMPTS, GREEDY, use_tqdm=False), "llama")
        llm.close()


def test_auto_takes_transformers_for_what_octavo_has_not_written(checkpoints, capsys):
    llm = engine(checkpoints("mixtral"), model_impl="auto", quiet=False)
    assert "is not one of Octavo's models: transformers runs it." in capsys.readouterr().err
    check(llm.generate(PROMPTS, GREEDY, use_tqdm=False), "mixtral")
    llama = engine(checkpoints("llama"), model_impl="auto", quiet=False)
    assert "transformers runs it" not in capsys.readouterr().err
    llm.close()
    llama.close()


def test_random_weights_and_bfloat16(checkpoints):
    llm = engine(checkpoints("mixtral"), load_format="dummy", dtype="bfloat16")
    outputs = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    assert {len(output.outputs[0].token_ids) for output in outputs} == {ANSWER_TOKENS}
    llm.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "numpy"}, "--backend torch"),
        ({"quantization": "int8"}, "leave it out"),
        ({"model_impl": "octavo"}, "GraniteForCausalLM is not supported"),
        ({"model_impl": "vllm"}, "use one of auto, octavo, transformers"),
    ],
)
def test_what_was_chosen_explicitly_never_falls_back(options, message, checkpoints):
    settings = {"backend": "torch", "model_impl": "transformers", "quiet": True, **options}
    with pytest.raises((UsageError, ModelLoadError), match=message):
        LLM(str(checkpoints("granite")), device="cpu", **settings)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}, "state-space"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "encoder-decoder"),
        ({"model_type": "bloom", "architectures": ["BloomForCausalLM"]}, "the positions"),
        ({"model_type": "falcon", "architectures": ["FalconForCausalLM"]}, "attention interface"),
        ({"model_type": "zebra", "architectures": ["ZebraForCausalLM"]}, "does not know model_t"),
        (
            {
                "model_type": "granite",
                "architectures": ["GraniteForCausalLM"],
                "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            },
            "longest sequence of a batch",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_weights_are_read(config, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 97, **config}))
    with pytest.raises(ModelLoadError, match=message):
        engine(tmp_path, load_format="dummy")


def test_a_missing_tensor_is_named(checkpoints, tmp_path):
    folder = checkpoints("granite")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ModelLoadError, match=r"missing.*model\.layers\.2\."):
        engine(tmp_path)


def test_the_commands_take_the_option(checkpoints, tmp_path):
    folder = str(checkpoints("granite"))
    options = ("--backend", "torch", "--device", "cpu", "--model-impl", "transformers")
    octavo = (sys.executable, "-m", "octavo.cli.main")
    plan = [*octavo, "plan", folder, *options, "--quiet", "--dtype", "float32", "--json"]
    done = subprocess.run(plan, capture_output=True, text=True, check=True, timeout=60)
    [report] = json.loads(done.stdout)
    assert report["fits"]
    assert report["weight_bytes"] == 4 * tiny_model("granite").num_parameters()
    # A prompt of text, streamed.
    tiny_tokenizers.save_folder(tmp_path, tiny_tokenizers.train_byte_level())
    save(tiny_model("granite", vocab_size=600), tmp_path)
    generate = [*octavo, "generate", str(tmp_path), "Once upon", *options, "--dtype", "float32"]
    done = subprocess.run(
        [*generate, "-t", "0", "-m", "4"], capture_output=True, text=True, check=True, timeout=60
    )
    llm = engine(tmp_path)
    pieces = llm.stream("Once upon", SamplingParams(temperature=0, max_tokens=4))
    assert done.stdout == "".join(piece.outputs[0].text for piece in pieces) + "\n"
    refused = [*octavo, "generate", folder, "Hi", "--model-impl", "transformers", "--backend"]
    done = subprocess.run(
        [*refused, "numpy"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "--backend torch" in done.stderr
    assert "Traceback" not in done.stderr


def test_transformers_is_imported_for_its_models_only(checkpoints):
    code = (
        "import sys; from octavo import LLM; "
        f"LLM({str(checkpoints('llama'))!r}, device='cpu', backend='torch', quiet=True, "
        "kv_cache_memory_bytes=1 << 20).generate([[5]], use_tqdm=False); "
        "assert 'torch' in sys.modules; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
