"""The counts that clients' answers are compared with, counted again by transformers."""

from __future__ import annotations

import ast

import pytest


def constants_of(path):
    """The module's constants that are literals; the module itself needs a server's address."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except (ValueError, AttributeError):
                continue
    return found


@pytest.mark.slow
def test_transformers_counts_the_same_tokens(smollm2_path, repo_root):
    from transformers import AutoTokenizer

    folder = repo_root / "tests/clients"
    constants = constants_of(folder / "client_checks.py")
    ids = constants_of(folder / "openai_completions_client.py")["PROMPT_IDS"]
    tokenizer = AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)
    assert tokenizer(constants["PROMPT"])["input_ids"] == ids
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": constants["QUESTION"]}],
        chat_template=(folder / "tools_template.jinja").read_text(),
        add_generation_prompt=True,
        return_dict=False,
    )
    assert len(chat) == constants["NUM_CHAT_TOKENS"]
