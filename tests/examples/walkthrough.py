"""A document that can be followed by a program: its files written, its commands run and compared.

Of its fenced blocks, those with a path after the language are files, whole. Those of the language
``console`` are commands, each after ``$ ``, with what they print; ``...`` is any text there,
and ``fails`` after ``console`` for a status that is not 0. What is ``text`` is only to be read.
"""

from __future__ import annotations

import doctest
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(?P<language>\w+) ?(?P<info>.*)\n(?P<body>(?:.*\n)*?)```$", re.MULTILINE)
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    language: str
    info: str
    body: str
    line: int

    @property
    def commands(self) -> Iterator[tuple[str, str]]:
        """(command, expected output) of a console block."""
        for part in re.split(r"^\$ ", self.body, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            yield command, expected


def read_blocks(document: str) -> list[Block]:
    return [
        Block(**match.groupdict(), line=document.count("\n", 0, match.start()) + 1)
        for match in _FENCE.finditer(document)
    ]


class Walk:
    """Follows a document in a folder; raises AssertionError where it is not as it says."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self._variables = variables

    def follow(self, block: Block) -> None:
        if block.language == "console":
            for command, expected in block.commands:
                self._run(command, expected, f"line {block.line}", fails=block.info == "fails")
        elif block.info:
            file = self.folder / block.info
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.body, "utf-8")
        else:
            assert block.language == "text", f"line {block.line}: a block without a file's name"

    def _run(self, command: str, expected: str, place: str, *, fails: bool) -> None:
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
            return
        ended = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        told = f"{place}: $ {command}\n{ended.stdout}{ended.stderr}"
        assert (ended.returncode != 0) == fails, f"status {ended.returncode}, {told}"
        matches = doctest.OutputChecker().check_output(expected, ended.stdout, _FLAGS)
        assert matches, f"expected\n{expected}\nfound, {told}"
