r"""How each byte-level vocabulary cuts text into words: tokenizer.ggml.pre → regular expressions.

A GGUF names the rule its merges were learned with; the rule itself is known only by that name. The
expressions are those of the models' own tokenizer.json files. Each one cuts what the ones before it
left uncut; text between two matches is a word of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.errors import ModelLoadError
from octavo.suggest import choices, did_you_mean

__all__ = ["WORD_SPLITS", "WordSplit", "find_word_split"]


@dataclass(frozen=True)
class WordSplit:
    """The expressions, and what else goes without saying for vocabularies of this kind.

    ``whole_words_first`` takes a word that is a token as it is, whatever the merges would make
    of it. ``adds_bos`` holds unless the file says otherwise.
    """

    expressions: tuple[str, ...]
    whole_words_first: bool = False
    adds_bos: bool = False


_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES_AND_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = _CONTRACTION + _LETTERS + r"|\p{N}{1,3}" + _SYMBOLS + _LINES_AND_SPACES
_QWEN2 = _CONTRACTION + _LETTERS + r"|\p{N}" + _SYMBOLS + _LINES_AND_SPACES
_QWEN35 = (
    _CONTRACTION
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    + _LINES_AND_SPACES
)
_SEED_CODER = _CONTRACTION + _LETTERS + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + _LINES_AND_SPACES
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)

_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_SYMBOLS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"


def _cased(suffix: str, digits: str) -> str:
    """Words that end where capitals begin again, as o200k and tekken cut them."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{before}{_UPPER}*{_LOWER}+{suffix}|{before}{_UPPER}+{_LOWER}*{suffix}"
        + digits
        + _CASED_SYMBOLS
        + _LINES_AND_SPACES
    )


_O200K = _cased(_CONTRACTION + "?", r"|\p{N}{1,3}")
_TEKKEN = _cased("", r"|\p{N}")

_DEEPSEEK_LETTERS = (  # letters with case, as of the Unicode of its day
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-"
    "\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-"
    "\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5"
    "\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-"
    "\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-"
    "\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-"
    "\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-"
    "\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149"
    "\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-"
    "\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-"
    "\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-"
    "\U0001e943"
)
_DEEPSEEK_LLM = (
    "[\r\n]",
    rf"\s?[{_DEEPSEEK_LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}",
)
_DEEPSEEK_CODER = (
    "[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}",
)
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*" + _LINES_AND_SPACES,
)
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"

_KINDS: dict[tuple[str, ...], WordSplit] = {
    # What llama.cpp takes for files that name nothing or "default".
    ("default",): WordSplit((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    (
        "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4",
        "gigachat", "a.x-4.0", "mellum", "modern-bert", "jina-es", "jina-de", "jina-v2-es",
        "jina-v2-de",
    ): WordSplit((_GPT2,)),
    (
        "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
        "mellum2",
    ): WordSplit((r"\p{N}", _GPT2)),
    (
        "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    ): WordSplit((_CL100K,), whole_words_first=True, adds_bos=True),
    ("dbrx", "smaug-bpe", "chatglm-bpe"): WordSplit((_CL100K,)),
    ("glm4", "glm5"): WordSplit((_CL100K,), whole_words_first=True),
    (
        "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan",
        "solar-open", "grok-2",
    ): WordSplit((_QWEN2,)),
    ("qwen35",): WordSplit((_QWEN35,)),
    ("deepseek-llm",): WordSplit(_DEEPSEEK_LLM),
    ("deepseek-coder",): WordSplit(_DEEPSEEK_CODER),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm"): WordSplit(_DEEPSEEK_V3),
    ("falcon",): WordSplit((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    ("tekken",): WordSplit((_TEKKEN,), whole_words_first=True, adds_bos=True),
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"): WordSplit((_O200K,)),
    ("bloom", "poro-chat", "gpt3-finnish"): WordSplit((_BLOOM,)),
    ("viking",): WordSplit((_BLOOM, r"\p{N}")),
    ("seed-coder",): WordSplit((_SEED_CODER,)),
    ("bailingmoe", "bailingmoe2", "llada-moe"): WordSplit((_BAILING,)),
}  # fmt: skip

WORD_SPLITS = {name: split for names, split in _KINDS.items() for name in names}


def find_word_split(name: str) -> WordSplit:
    """The rule of a tokenizer.ggml.pre name; a wrong one would degrade every answer unseen."""
    try:
        return WORD_SPLITS[name]
    except KeyError:
        raise ModelLoadError(
            f"The GGUF names the pre-tokenizer {name!r} (tokenizer.ggml.pre), which is not known."
            f"{did_you_mean(name, WORD_SPLITS)} Known are: {choices(sorted(WORD_SPLITS))}. Use the "
            "model's tokenizer.json instead: --tokenizer FOLDER."
        ) from None
