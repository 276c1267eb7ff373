"""What a user of transformers writes to get one streamed answer; cold_start.py times it."""

from __future__ import annotations

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer


class TokenPrinter(BaseStreamer):  # type: ignore[misc]
    """Prints each token when it comes; TextStreamer would wait for a whole word."""

    def __init__(self, tokenizer: AutoTokenizer) -> None:
        self._tokenizer = tokenizer
        self._is_prompt = True

    def put(self, value: object) -> None:
        if self._is_prompt:
            self._is_prompt = False
            return
        text = self._tokenizer.decode(value, skip_special_tokens=True)
        print(text, end="", flush=True)

    def end(self) -> None:
        print()


def main(folder: str, message: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    model.generate(**inputs, max_new_tokens=100, do_sample=False, streamer=TokenPrinter(tokenizer))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
