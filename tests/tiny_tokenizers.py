"""Tokenizers small enough to train in a test, and text that breaks careless ones."""

# ruff: noqa: S106 - tokens of a vocabulary are no passwords

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "Hello world",
    " Hello  world ",
    "Hello world, don't stop: I'll say it's 3.14 and 1234567.",
    "line one\nline two\r\n\r\n\tindented\n\n\n",
    "def f(x):\n    return x ** 2  # done",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "Voix ambiguë d'un cœur qui préfère les jattes de kiwis",
    "Съешь же ещё этих мягких французских булок",
    "日本語のテキストと漢字、そして「かぎ括弧」。",
    "我能吞下玻璃而不伤身体。",
    "다람쥐 헌 쳇바퀴에 타고파",
    "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ",
    "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "e\u0301 a\u0308 n\u0303 \u1e9b\u0323",  # combining characters
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇮🇹",
    "\U0001d518\U0001d52b\U0001d526 \U0001f9ff \U000e0041",
    "zero\u200bwidth\u00a0and\u3000wide\u2003spaces \ufeff",
    "\u0000\u0007\u001b[31m",
    "<s>▁ <0x41> <unk>",
    "a" * 200,
]
_TRAINING_TEXTS = [text for text in TEXTS if "\u0000" not in text] * 4

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_byte_level() -> Tokenizer:
    """GPT-2's kind of BPE, with three special tokens and no post-processor."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXTS, trainer)
    return tokenizer


def train_sentencepiece(**options: Any) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece BPE model with byte fallback that keeps every space."""
    model = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 620,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 0.98,
        "user_defined_symbols": ["<turn>"],
        "minloglevel": 2,
        **options,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in _TRAINING_TEXTS for line in text.split("\n")),
        model_writer=model,
        **settings,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def sentencepiece_metadata(
    processor: sentencepiece.SentencePieceProcessor, **values: Any
) -> dict[str, Any]:
    """What a GGUF file would say of a SentencePiece model."""
    ids = range(processor.get_piece_size())
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [processor.id_to_piece(token_id) for token_id in ids],
        "tokenizer.ggml.scores": np.array(
            [processor.get_score(token_id) for token_id in ids], dtype=np.float32
        ),
        "tokenizer.ggml.token_type": np.array(
            [_token_kind(processor, token_id) for token_id in ids], dtype=np.int32
        ),
        "tokenizer.ggml.bos_token_id": processor.bos_id(),
        "tokenizer.ggml.eos_token_id": processor.eos_id(),
        "tokenizer.ggml.unknown_token_id": processor.unk_id(),
        **{f"tokenizer.ggml.{key}": value for key, value in values.items()},
    }


def _token_kind(processor: sentencepiece.SentencePieceProcessor, token_id: int) -> int:
    if processor.is_unknown(token_id):
        return 2
    if processor.is_control(token_id):
        return 3
    if processor.is_byte(token_id):
        return 6
    return 4 if processor.id_to_piece(token_id) == "<turn>" else 1


def train_unigram() -> Tokenizer:
    """A Unigram model with SentencePiece's spaces, as T5 and XLM-R have."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def llama_like(processor: sentencepiece.SentencePieceProcessor) -> Tokenizer:
    """tokenizer.json of a SentencePiece model as transformers wrote it for Llama 2."""
    pieces = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    merges = sorted(
        (-processor.get_score(token_id), piece[:cut], piece[cut:])
        for piece, token_id in pieces.items()
        if not (processor.is_control(token_id) or processor.is_byte(token_id))
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    )
    model = models.BPE(
        vocab=pieces,
        merges=[(left, right) for _, left, right in merges],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", processor.bos_id())]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def save_folder(folder: Path, tokenizer: Tokenizer, **config: Any) -> Path:
    """tokenizer.json and tokenizer_config.json in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
