"""What structured output costs: compiling a form, and the masks of a step, for a real vocabulary.

Compiling is timed for a form that the engine has not seen. Masks are timed along an answer that
draws among the allowed tokens: all rows of a step in one call, whose time is given for each row.

    python benchmarks/structured_output.py [models/SmolLM2-135M-Instruct.Q4_1.gguf] [--rows 1 16 64]
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

STRINGS = {"type": "string", "maxLength": 40}
FORMS = {
    "choice of 3": {"choice": ["positive", "neutral", "negative"]},
    "regex, a phone number": {"regex": r"\+\d{1,3} \d{3}-\d{4}"},
    "any JSON object": {"json_object": True},
    "schema, 3 properties": {
        "json": {
            "type": "object",
            "properties": {"name": STRINGS, "age": {"type": "integer"}, "city": STRINGS},
            "required": ["name", "age", "city"],
            "additionalProperties": False,
        }
    },
    "schema, 60 properties": {
        "json": {
            "type": "object",
            "properties": {
                f"group{i}": {
                    "type": "object",
                    "properties": {f"field{j}": STRINGS for j in range(10)},
                    "required": [f"field{j}" for j in range(10)],
                    "additionalProperties": False,
                }
                for i in range(6)
            },
            "required": [f"group{i}" for i in range(6)],
        }
    },
    "grammar, arithmetic": {
        "grammar": 'start: sum\nsum: term (("+" | "-") term)*\nterm: /[0-9]+/ | "(" sum ")"'
    },
}


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--tokens", type=int, default=100, help="steps along each answer")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def load_vocabulary(model: str):
    from octavo.completion import Vocabulary
    from octavo.loading import open_checkpoint
    from octavo.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(open_checkpoint(model).tokenizer)
    return Vocabulary(tokenizer.vocab_size, tokenizer, tokenizer.eos_token_ids)


def compile_ms(vocabulary, structured, repeats):
    """Each time by a compiler that has been opened, and has compiled nothing else of note."""
    from octavo.structured.compiler import GrammarCompiler

    compiler = GrammarCompiler(vocabulary)
    compiler.mask_for(type(structured)(choice=["a"]))
    times = []
    for _ in range(repeats):
        compiler._compiled.clear()  # noqa: SLF001 - what a second request would find
        started = time.perf_counter()
        compiler.mask_for(structured)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def mask_us(compiler, structured, num_rows, num_tokens):
    """Microseconds for each row of each step, in steps where all rows still run."""
    import numpy as np

    from octavo.token_mask import allowed_tokens

    rng = random.Random(0)
    masks = [compiler.mask_for(structured) for _ in range(num_rows)]
    vocab_size = masks[0].allowed().size
    times = []
    for _ in range(num_tokens):
        started = time.perf_counter()
        table = allowed_tokens(masks, vocab_size)
        times.append(time.perf_counter() - started)
        for index, mask in enumerate(masks):
            mask.accept(int(rng.choice(np.flatnonzero(table[index]))))
            if mask.is_finished:
                masks[index] = compiler.mask_for(structured)
    return [1e6 * each / num_rows for each in times]


def main() -> None:
    arguments = read_arguments()
    from octavo.structured import StructuredOutputs
    from octavo.structured.compiler import GrammarCompiler

    vocabulary = load_vocabulary(arguments.model)
    started = time.perf_counter()
    compiler = GrammarCompiler(vocabulary)
    compiler.mask_for(StructuredOutputs(choice=["a"]))
    print(f"{vocabulary.size} tokens; opened in {time.perf_counter() - started:.2f} s, once\n")
    columns = "".join(f" | {rows} rows, median (99 %)" for rows in arguments.rows)
    print(f"| form | compiled, ms{columns}, µs a row |")
    print("|---" * (2 + len(arguments.rows)) + "|")
    for name, form in FORMS.items():
        structured = StructuredOutputs(**form)
        cells = [f"{compile_ms(vocabulary, structured, arguments.repeats):.1f}"]
        for num_rows in arguments.rows:
            times = sorted(mask_us(compiler, structured, num_rows, arguments.tokens))
            worst = times[int(0.99 * (len(times) - 1))]
            cells.append(f"{statistics.median(times):.0f} ({worst:.0f})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
