"""A command group whose commands are imported when they are invoked, not before."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from octavo.cli.errors import reporting_errors
from octavo.suggest import choices, did_you_mean

__all__ = ["CommandEntry", "LazyGroup"]


@dataclass(frozen=True)
class CommandEntry:
    """Where a command lives and how ``octavo --help`` presents it, known without importing it."""

    function: str  # "module:function"; a function as typer takes it
    help: str
    panel: str

    def load(self, name: str) -> Any:
        """Import the function and make a command of it."""
        module, _, function = self.function.partition(":")
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        app.command(name=name)(getattr(import_module(module), function))
        return typer.main.get_command(app)


class LazyGroup(TyperGroup):
    """Shows stubs in the help; loads a command when it is called. Subclasses set ``entries``."""

    entries: dict[str, CommandEntry]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in self.entries.items():
            self.commands[name] = TyperCommand(
                name, help=entry.help, rich_help_panel=entry.panel, rich_markup_mode="rich"
            )

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """As typer does it, with the real command in place of its stub."""
        if args and args[0] not in self.commands and not ctx.resilient_parsing:
            known = f"Commands: {choices(self.commands)}."
            ctx.fail(f"No such command {args[0]!r}.{did_you_mean(args[0], self.commands)} {known}")
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.entries:
            command = self.entries[name].load(name)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an OctavoError becomes a message and an exit code."""
        with reporting_errors(debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)
