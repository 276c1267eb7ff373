"""Rows as text: one line each as they come, tables at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import report
from gpu_settings import Row

DEVICE = "the device"
BEGIN, END = "<!-- gpu.py: begin -->", "<!-- gpu.py: end -->"
REHEARSED = "rehearsed on the CPU"
HIDDEN = ("table", "rate", "is_wrong")  # for programs
REHEARSAL = "**A rehearsal on the CPU in tiny shapes: no figure here says anything of a device.**"


def line(row: Row) -> str:
    return f"{row['table']}: " + ", ".join(_text(row[key]) for key in row if key not in HIDDEN)


def joined(files: Sequence[Sequence[Row]]) -> list[Row]:
    """All rows, those of the device once: the last run's."""
    rows = [row for file in files for row in file]
    facts = {row["name"]: row for row in rows if row["table"] == DEVICE}
    return [*facts.values(), *(row for row in rows if row["table"] != DEVICE)]


def write_into(page: Path, rows: Sequence[Row]) -> None:
    """The tables between the page's two marks; raises ValueError if it has none."""
    text = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN} and {END} to write between.")
    page.write_text(f"{before}{BEGIN}\n\n{markdown(rows)}\n\n{END}{after}", encoding="utf-8")


def markdown(rows: Sequence[Row]) -> str:
    """A table for each name, in the order in which their first rows came."""
    is_rehearsal = any(REHEARSED in str(row.get("value")) for row in rows)
    parts = [REHEARSAL] if is_rehearsal else []
    for name in dict.fromkeys(row["table"] for row in rows):
        parts.append(f"### {name[0].upper()}{name[1:]}")
        parts.append(_table([row for row in rows if row["table"] == name]))
    return "\n\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    columns = [
        key for key in dict.fromkeys(key for row in rows for key in row) if key not in HIDDEN
    ]
    body = [[_text(row.get(column, "")) for column in columns] for row in rows]
    return report.markdown([columns, *body])


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "\\|")
