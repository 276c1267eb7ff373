"""Rows as text: one line each as they come, tables at the end."""

from __future__ import annotations

from collections.abc import Sequence

import report
from gpu_settings import Row

HIDDEN = ("table", "rate", "is_wrong")  # for programs
REHEARSAL = "**A rehearsal on the CPU in tiny shapes: no figure here says anything of a device.**"


def line(row: Row) -> str:
    return f"{row['table']}: " + ", ".join(_text(row[key]) for key in row if key not in HIDDEN)


def markdown(rows: Sequence[Row], *, is_rehearsal: bool) -> str:
    """A table for each name, in the order in which their first rows came."""
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
