"""``octavo chat``: talk to a model in the terminal."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.options import ENGINE_OPTIONS, SAMPLING_OPTIONS, with_options
from octavo.cli.sampling import check_sampling_flags, sampling_params
from octavo.errors import UsageError

if TYPE_CHECKING:
    from octavo.llm import LLM
    from octavo.sampling_params import SamplingParams

__all__ = ["chat"]

HELP = """\
/help          this list
/history       the conversation so far
/system TEXT   set the system message and start anew
/clear         forget the conversation
/retry         answer the last message again
/quit          leave (Ctrl-D too)
Ctrl-C stops an answer; what has been said of it stays in the conversation."""


@with_options(ENGINE_OPTIONS, SAMPLING_OPTIONS)
def chat(
    model: Annotated[str, typer.Argument(help="A .gguf file, a folder, or a hub name.")],
    message: Annotated[
        str | None, typer.Option("--message", help="Answer this once and exit.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system message.")] = None,
    engine: dict[str, Any] | None = None,
    sampling: dict[str, Any] | None = None,
) -> None:
    """Talk to a model; answers are streamed, Ctrl-C stops one, /help lists the commands.

    [bold]Examples[/bold]

      octavo chat model.gguf

      octavo chat model.gguf --temperature 0 --message "What is the capital of France?"
    """
    if message is not None and not message.strip():
        raise UsageError("--message is empty: expected the text to answer.")
    check_sampling_flags(sampling)
    if (sampling or {}).get("n", 1) != 1:
        raise UsageError("--n has no place in a chat, which goes on from one answer; use generate.")
    from octavo.llm import LLM  # heavy: only when the arguments are good

    llm = LLM(model, **(engine or {}))
    try:
        # An answer goes on until it is done, unless the user set a length.
        params = sampling_params(llm, {"max_tokens": None, **(sampling or {})})
        session = ChatSession(llm, params, system)
        if message is not None:
            session.answer(message)
        else:
            session.run()
    finally:
        llm.close()


class ChatSession:
    """A conversation with its history."""

    def __init__(self, llm: LLM, params: SamplingParams, system: str | None) -> None:
        self._llm = llm
        self._params = params
        self._system = system
        self._messages: list[dict[str, str]] = []
        self._start()

    def _start(self) -> None:
        self._messages = [{"role": "system", "content": self._system}] if self._system else []

    def run(self) -> None:
        """Read, answer, repeat, until /quit or the end of the input."""
        interactive = sys.stdin.isatty()
        if interactive:
            _enable_line_editing()
            print("Type a message, /help for commands, Ctrl-D to leave.")
        while (line := _read_line("> " if interactive else "")) is not None:
            text = line.strip()
            if text.startswith("/"):
                if not self._command(text):
                    return
            elif text:
                self.answer(text)

    def answer(self, text: str) -> None:
        """Answer one message, streamed to standard output."""
        self._messages.append({"role": "user", "content": text})
        written: list[str] = []
        try:
            with _interruptible() as interrupted:
                stream = self._llm.stream_chat(self._messages, self._params)
                for output in stream:
                    written.append(output.outputs[0].text)
                    sys.stdout.write(written[-1])
                    sys.stdout.flush()
                    if interrupted.is_set():
                        stream.close()  # type: ignore[attr-defined]  # ends the request
                        break
        except UsageError as error:
            self._messages.pop()
            if not sys.stdin.isatty():
                raise
            print(f"{error}\n(/clear starts anew.)")
            return
        sys.stdout.write("\n")
        self._messages.append({"role": "assistant", "content": "".join(written)})

    def _command(self, text: str) -> bool:
        """Carry out a slash command; False to leave."""
        name, _, argument = text.partition(" ")
        if name in ("/quit", "/exit", "/bye"):
            return False
        if name == "/help":
            print(HELP)
        elif name == "/history":
            for message in self._messages:
                print(f"{message['role']}: {message['content']}")
        elif name == "/clear":
            self._start()
        elif name == "/system":
            self._system = argument.strip() or None
            self._start()
        elif name == "/retry":
            self._retry()
        else:
            print(f"{name} is not a command; /help lists them.")
        return True

    def _retry(self) -> None:
        while self._messages and self._messages[-1]["role"] == "assistant":
            self._messages.pop()
        if not self._messages or self._messages[-1]["role"] != "user":
            print("There is nothing to answer again.")
            return
        self.answer(self._messages.pop()["content"])


def _read_line(prompt: str) -> str | None:
    """A line of input; None at its end. Ctrl-C at the prompt drops the line."""
    while True:
        try:
            return input(prompt)
        except EOFError:
            if prompt:
                print()
            return None
        except KeyboardInterrupt:
            if not prompt:
                raise
            print("\n(Ctrl-D or /quit leaves.)")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn Ctrl-C into an event, so that a step under way is completed and not torn.

    A second Ctrl-C, when the first has not been heard, interrupts as usual.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def note(signum: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            signal.default_int_handler(signum, frame)
        interrupted.set()

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401 - importing it gives input() editing and history
    except ImportError:
        return  # not on Windows
