"""One part of gpu.py in a process of its own: rows on standard output, one JSON object a line."""

from __future__ import annotations

import importlib
import json
import os
import sys

from gpu_settings import Settings

MODULES = {
    "machine": "gpu_machine",
    "commands": "gpu_commands",
    "conform": "gpu_conform",
    "kernels": "gpu_kernels",
    "attention": "gpu_attention",
    "end-to-end": "gpu_end_to_end",
    "large": "gpu_large",
}


def main(part: str, settings: Settings) -> None:
    rows = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    for row in importlib.import_module(MODULES[part]).run(settings):
        print(json.dumps(row), file=rows, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Settings(**json.loads(sys.argv[2])))
