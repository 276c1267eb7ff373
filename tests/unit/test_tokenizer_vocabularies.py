"""Real vocabularies and chat templates, against the ids and prompts that are known for them."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest
from chats import CHATS, TOOLS
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from octavo.errors import ModelLoadError, UsageError
from octavo.loading.gguf_file import GGUFFile
from octavo.loading.tokenizer_source import TokenizerSource
from octavo.tokenizer import IncrementalDetokenizer, Tokenizer, load_tokenizer, render_chat
from octavo.tokenizer.fast import FastTokenizer
from tiny_tokenizers import TEXTS, train_byte_level

pytestmark = pytest.mark.slow

VOCABULARIES = [
    "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gpt-2", "llama-bpe", "llama-spm",
    "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder",
]  # fmt: skip
REFUSED = {"bert-bge": "bert", "gemma-4": "gemma4", "nomic-bert-moe": "t5"}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="session")
def llama_cpp_models(repo_root) -> Path:
    """llama.cpp's vocabularies and templates; fetched once into models/."""
    result = subprocess.run(
        [sys.executable, str(repo_root / "scripts" / "fetch_vocabularies.py")],
        capture_output=True,
        check=False,
        text=True,
    )
    if result.returncode != 0:
        pytest.skip(f"no vocabularies in models/, nor to be had: {result.stderr.strip()}")
    return Path(result.stdout.strip())


def load(folder: Path, name: str) -> Tokenizer:
    with closing(GGUFFile(folder / f"ggml-vocab-{name}.gguf")) as file:
        return load_tokenizer(TokenizerSource(gguf=file.metadata))


def golden_cases(folder: Path, name: str) -> list[tuple[str, list[int]]]:
    """Texts, each followed by a separator, and as many lines of token ids."""
    path = folder / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    lines = Path(f"{path}.out").read_bytes().decode().splitlines()
    return [
        (text, [int(token_id) for token_id in line.split()])
        for text, line in zip(texts, lines, strict=True)
    ]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_encodes_the_golden_texts(llama_cpp_models, name):
    tokenizer = load(llama_cpp_models, name)
    cases = golden_cases(llama_cpp_models, name)
    if name == "qwen35":
        # Qwen's own tokenizers compose characters first, which llama.cpp leaves out.
        cases = [case for case in cases if unicodedata.is_normalized("NFC", case[0])]
    assert len(cases) > 40
    for text, expected in cases:
        assert tokenizer.encode(text, add_special_tokens=False) == expected


@pytest.mark.parametrize("name", VOCABULARIES)
def test_streams_the_golden_texts(llama_cpp_models, name):
    tokenizer = load(llama_cpp_models, name)
    for text, ids in golden_cases(llama_cpp_models, name):
        detokenizer = IncrementalDetokenizer(tokenizer)
        pushed = "".join(detokenizer.push([token_id]) for token_id in ids) + detokenizer.flush()
        assert pushed == tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "qwen2"])
def test_decodes_as_transformers(llama_cpp_models, name):
    ours = load(llama_cpp_models, name)
    theirs = AutoTokenizer.from_pretrained(llama_cpp_models, gguf_file=f"ggml-vocab-{name}.gguf")
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == theirs.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_other_kinds_are_refused_by_name(llama_cpp_models, name):
    with pytest.raises(ModelLoadError, match=f"kind '{REFUSED[name]}'"):
        load(llama_cpp_models, name)


def test_every_template_renders_as_transformers(llama_cpp_models):
    tokenizer = FastTokenizer(train_byte_level(), special_tokens=TOKENS)
    paths = sorted((llama_cpp_models / "templates").glob("*.jinja"))
    assert len(paths) > 60
    differing = [
        f"{path.name}, {chat}, tools={tools is not None}, prompt={prompt}"
        for path in paths
        for chat in CHATS
        for tools in (None, TOOLS)
        for prompt in (True, False)
        if not renders_alike(tokenizer, path.read_text(encoding="utf-8"), chat, tools, prompt)
    ]
    assert differing == []


def renders_alike(tokenizer, source, chat, tools, add_generation_prompt) -> bool:
    """The same prompt from both, or none from either."""
    options = {"tools": tools, "add_generation_prompt": add_generation_prompt}
    try:
        prompts, _ = render_jinja_template([CHATS[chat]], chat_template=source, **TOKENS, **options)
    except Exception:
        prompts = [None]
    try:
        ours = render_chat(tokenizer, CHATS[chat], chat_template=source, **options)
    except UsageError:
        ours = None
    return prompts == [ours]
