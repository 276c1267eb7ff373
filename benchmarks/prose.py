"""English prose for perplexity: the Debian Administrator's Handbook, from Debian's own package.

By Raphaël Hertzog and Roland Mas; GPL-2+ or CC-BY-SA-3.0. Fetched with apt, neither installed nor
kept in the repository. Only paragraphs are taken: no commands, no listings, no titles.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

from make_hf_model import ROOT

APT_GET, DPKG_DEB = "/usr/bin/apt-get", "/usr/bin/dpkg-deb"
PACKAGE = "debian-handbook"
PAGES = "usr/share/doc/debian-handbook/html/en-US"
TEXT_PATH = ROOT / "models" / f"{PACKAGE}.txt"
MIN_CHARACTERS = 200  # of a paragraph: shorter ones are items of lists and captions


def make_text(path: Path = TEXT_PATH) -> Path:
    """The book's paragraphs, an empty line between them; fetched on first use."""
    if path.is_file():
        return path
    with tempfile.TemporaryDirectory(prefix="octavo-prose-") as folder:
        try:
            subprocess.run([APT_GET, "download", "--quiet", PACKAGE], cwd=folder, check=True)
            (package,) = Path(folder).glob("*.deb")
            subprocess.run([DPKG_DEB, "--extract", package, folder], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"{PACKAGE} cannot be fetched ({error}): run apt-get update first, or name a text "
                "of your own with --text"
            ) from error
        pages = sorted((Path(folder) / PAGES).glob("*.html"))
        found = [paragraph for page in pages for paragraph in paragraphs(page.read_text("utf-8"))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(found) + "\n", "utf-8")
    return path


def paragraphs(html: str) -> list[str]:
    """The running text of a page of the book."""
    parser = _Paragraphs()
    parser.feed(html)
    return [text for text in parser.found if len(text) >= MIN_CHARACTERS]


class _Paragraphs(HTMLParser):
    """Collects what stands in <div class="para">, but in no <pre> and no element of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._is_para: list[bool] = []  # of each <div> that is open
        self._num_pre = 0
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "pre":
            self._num_pre += 1
        if tag == "div":
            self._end_paragraph()
            self._is_para.append(dict(attrs).get("class") == "para")

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._num_pre -= 1
        if tag == "div":
            self._end_paragraph()
            self._is_para.pop()

    def handle_data(self, data: str) -> None:
        if self._is_para and self._is_para[-1] and not self._num_pre:
            self._text += data

    def _end_paragraph(self) -> None:
        self.found.append(" ".join(self._text.split()))
        self._text = ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", type=Path, default=TEXT_PATH)
    print(make_text(parser.parse_args().path))
