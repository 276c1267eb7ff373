"""One file of a distribution, downloaded with pip and neither built nor installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["DownloadError", "download"]

TIME_LIMIT_S = 900


class DownloadError(Exception):
    """The file cannot be had; the message says why."""


def download(requirement: str, folder: Path, only: str, suffix: str) -> Path:
    """The file with ``suffix`` that pip puts into ``folder`` for ``name==version``.

    ``only`` is pip's flag: ``--only-binary=:all:`` for a wheel, ``--no-binary=:all:`` for a source
    archive. Dependencies are left out.
    """
    # A constraints file for the project's own installs has no say here.
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input",
        "--disable-pip-version-check", "--no-deps", only, "--dest", str(folder), requirement,
    ]
    # fmt: on
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(f"pip did not finish downloading within {TIME_LIMIT_S} s") from error
    files = sorted(folder.glob(f"*{suffix}"))
    if files:  # whatever else pip complains about
        return files[0]
    lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
    detail = "\n  ".join(lines or ended.stderr.splitlines()[-3:] or ["pip gave no reason"])
    raise DownloadError(f"pip download {requirement} failed:\n  {detail}")
