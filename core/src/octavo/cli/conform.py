"""``octavo conform``: prove an installed backend right, and say where it is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.listing import AsJson, PluginsFile, installed, print_json
from octavo.errors import UsageError
from octavo.suggest import choices

if TYPE_CHECKING:
    from octavo.testing.report import Report
    from octavo.testing.run import SuiteRequest, SuiteRun

__all__ = ["conform"]

_EXIT_FAILURES = 1
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def conform(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The backend: numpy, torch, cuda, …")
    ] = None,
    device: Annotated[
        str,
        typer.Option("--device", "-d", help="auto, or KIND[:INDEX], for example cpu or cuda:0."),
    ] = "auto",
    attention_backend: Annotated[
        str | None, typer.Option(help="Pin an attention implementation that a plugin registered.")
    ] = None,
    section: Annotated[
        str | None, typer.Option("--section", help="Only these sections: ops,paging,…")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("-k", help="Only this check or case, or those with this text; * is any text."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A sample of each table, and no performance.")
    ] = False,
    performance: Annotated[
        bool | None,
        typer.Option(
            help=r"Measure each op's speed; never fails. \[on, off with --quick]",
            show_default=False,
        ),
    ] = None,
    stop_at_first: Annotated[bool, typer.Option("-x", help="Stop at the first failure.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that one case may take.")
    ] = 120.0,
    list_only: Annotated[
        bool, typer.Option("--list", help="List the checks; with NAME, the cases.")
    ] = False,
    as_json: AsJson = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Write the JSON to this file, too."),
    ] = None,
    plugins_file: PluginsFile = None,
) -> None:
    """Prove an installed backend right: contract, ops, paging, engine, faults.

    Checks run in a process of their own: a crash or a hang is one failed case.

    Exits with 0 if nothing failed, 1 if something did, 2 if a flag is wrong.

    [bold]Examples[/bold]

      octavo conform numpy

      octavo conform acme --quick -x

      octavo conform acme --section ops,paging -k int8

      octavo conform acme --output acme.json

      octavo conform --list
    """
    # The suite imports NumPy; asking for help should not.
    from octavo.testing.run import SuiteRequest, SuiteRun
    from octavo.testing.selection import Selection

    sections = None if section is None else tuple(part.strip() for part in section.split(","))
    selection = Selection(sections, pattern, quick, performance)
    if name is None:
        if not list_only:
            known = sorted(installed(plugins_file)[1].backends)
            raise UsageError(f"Name a backend: octavo conform NAME. Installed: {choices(known)}.")
        from octavo.cli.conform_list import list_checks

        list_checks(selection, as_json=as_json)
        return
    if output is not None and not output.absolute().parent.is_dir():
        raise UsageError(f"--output names {output}, whose folder does not exist.")
    request = SuiteRequest(
        name,
        device,
        attention_backend,
        None if plugins_file is None else str(plugins_file),
        selection,
        timeout,
    )
    with SuiteRun(request, _show_output) as run:
        if list_only:
            from octavo.cli.conform_list import list_cases

            list_cases(run, as_json=as_json)
            return
        _run_all(run, stop_at_first=stop_at_first)
    _write(run.report, request, as_json=as_json, output=output)
    _exit(run.report)


def _run_all(run: SuiteRun, *, stop_at_first: bool) -> None:
    """Run every case into the report. Ctrl-C ends the case that runs, and keeps what is known."""
    from octavo.cli.conform_progress import show_progress

    _print_to_stderr(f"{run.reason}; {len(run.cases)} cases")
    with show_progress(run.num_results) as progress, _until_interrupted(run):
        for result in run.results(progress.start):
            progress.finish(result)
            # Not at a blocked case: what it is blocked by fails by itself.
            if stop_at_first and result.status == "failed" and result in run.report.failures:
                return


@contextmanager
def _until_interrupted(run: SuiteRun) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        run.kill()
        run.report.was_interrupted = True
        _print_to_stderr(f"interrupted in {run.current}")


def _write(report: Report, request: SuiteRequest, *, as_json: bool, output: Path | None) -> None:
    from octavo.cli.conform_tables import print_report

    record = report.as_json()
    if output is not None:
        output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json(record)
    else:
        print_report(report, lambda each: _command(request, each))


def _command(request: SuiteRequest, pattern: str) -> list[str]:
    """The command line that runs one check or case again, as it was run."""
    command = ["octavo", "conform", request.backend]
    if request.device != "auto":
        command += ["--device", request.device]
    if request.attention_backend is not None:
        command += ["--attention-backend", request.attention_backend]
    if request.plugins_file is not None:
        command += ["--plugins-file", request.plugins_file]
    return [*command, "-k", pattern]


def _exit(report: Report) -> None:
    if report.was_interrupted:
        raise typer.Exit(_EXIT_INTERRUPTED)
    if report.failures:
        raise typer.Exit(_EXIT_FAILURES)


def _show_output(line: str) -> None:
    """What a backend printed: off standard output, which is for the report."""
    sys.stderr.write(line)
    sys.stderr.flush()


def _print_to_stderr(text: str) -> None:
    from octavo.cli.tables import printable

    print(printable(text), file=sys.stderr)
