"""Tables on standard output: drawn by rich on a terminal, plain aligned lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["print_note", "print_table", "printable"]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a title; nothing at all if there are none."""
    if not rows:
        return
    clean_rows = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(title, columns, clean_rows)
    else:
        _print_plain(title, columns, clean_rows)


def print_note(text: str) -> None:
    """Print one line beside tables, and leave one free after it."""
    print(printable(text))
    print()


def _print_rich(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # rich costs more to import than everything else in a listing: only for a terminal.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _print_plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [[column.upper() for column in columns], *rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    print(f"{title}:")
    for line in lines:
        padded = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(f"  {padded}".rstrip())
    print()


def printable(text: str) -> str:
    """The text without control characters: cells hold what plugins wrote."""
    return "".join(char if char.isprintable() else " " for char in text)
