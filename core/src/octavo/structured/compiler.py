"""Compiles requests' grammars, each once, for the vocabulary of one engine."""

from __future__ import annotations

import functools
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from octavo.errors import UsageError
from octavo.structured.grammar import lark_grammar
from octavo.structured.grammar_mask import GrammarMask, GrammarMasks, readable_reason
from octavo.structured.limits import COMPILE_STACK_BYTES, MAX_LEXER_STATES
from octavo.structured.package import load_llguidance
from octavo.structured.parts import AnswerGrammar
from octavo.structured.vocabulary import build_tokenizer

if TYPE_CHECKING:
    from octavo.completion import Vocabulary
    from octavo.structured.params import StructuredOutputs

    Form: TypeAlias = StructuredOutputs | AnswerGrammar

__all__ = ["GrammarCompiler", "check_without_vocabulary"]

_MAX_KEPT = 32  # compiled grammars: servers see the same few schemas again and again
_MAX_REASON_LENGTH = 1000
_PLACE = re.compile(r"^at \d+\(\d+\): ")
_STACK_LOCK = threading.Lock()


class GrammarCompiler:
    """Makes the token masks of an engine's requests; nothing is loaded before the first."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._llguidance: Any = None
        self._tokenizer: Any = None
        self._masks: GrammarMasks | None = None
        self._compiled: OrderedDict[Form, Any] = OrderedDict()

    def mask_for(self, structured: Form, *, ignore_eos: bool = False) -> GrammarMask:
        """The mask of an answer that has no token yet.

        Raises UsageError with llguidance's reason for what it cannot compile, and for a grammar
        that no text of this vocabulary matches.
        """
        masks = self._open()
        matcher = self._compiled.get(structured)
        if matcher is None:
            matcher = self._compile(structured)
            self._compiled[structured] = matcher
            if len(self._compiled) > _MAX_KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(structured)
        return GrammarMask(matcher.deep_copy(), masks, bars_end=ignore_eos)

    def _open(self) -> GrammarMasks:
        if self._masks is None:
            llguidance = load_llguidance()
            self._tokenizer = build_tokenizer(llguidance, self._vocabulary)
            self._llguidance = llguidance
            self._masks = GrammarMasks(
                llguidance,
                self._tokenizer,
                self._vocabulary.size,
                sorted(self._vocabulary.eos_token_ids),
            )
        return self._masks

    def _compile(self, structured: Form) -> Any:
        grammar = lark_grammar(self._llguidance, structured, lambda: self._special_tokens)

        def compile_and_begin() -> Any:
            matcher = self._llguidance.LLMatcher(
                self._tokenizer, grammar, log_level=0, limits=_limits(self._llguidance)
            )
            matcher.compute_bitmask()  # a grammar without a first token is found here
            return matcher

        matcher = _with_deep_stack(compile_and_begin)
        if matcher.is_error():
            if isinstance(structured, AnswerGrammar):
                for outputs in structured.forms:
                    self._compile(outputs)  # raises for the one that is at fault
            raise _refusal(structured, matcher.get_error())
        return matcher

    @functools.cached_property
    def _special_tokens(self) -> dict[str, int]:
        tokenizer = self._vocabulary.tokenizer
        if tokenizer is None:
            return {}
        known = (i for i in tokenizer.special_ids if i < self._vocabulary.size)
        return {tokenizer.id_to_token(token_id): token_id for token_id in known}


def check_without_vocabulary(structured: StructuredOutputs) -> None:
    """Raise UsageError for what no vocabulary could make good, before there is one.

    What may name special tokens is left to the engine.
    """
    llguidance = load_llguidance()
    if structured.kind in ("grammar", "structural_tag"):
        return
    grammar = lark_grammar(llguidance, structured, dict)
    limits = _limits(llguidance)
    error = _with_deep_stack(
        lambda: llguidance.LLMatcher.validate_grammar(grammar, None, limits=limits)
    )
    if error and not error.startswith("WARNING"):
        raise _refusal(structured, error)


def _limits(llguidance: Any) -> Any:
    return llguidance.LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)


def _refusal(structured: Form, error: str) -> UsageError:
    reason = readable_reason(error)
    if structured.kind != "grammar":  # places in a text that the user has not written
        reason = _PLACE.sub("", reason).partition("\n   1 | ")[0]
    if len(reason) > _MAX_REASON_LENGTH:
        reason = reason[:_MAX_REASON_LENGTH] + " …"
    return UsageError(f"structured_outputs.{structured.kind} cannot be used: {reason}")


def _with_deep_stack(function: Callable[[], Any]) -> Any:
    """What ``function`` returns, run in a thread whose stack a hostile grammar cannot overflow."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(function()), name="octavo-grammar")
    with _STACK_LOCK:
        previous = threading.stack_size(COMPILE_STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(previous)
    thread.join()
    if not result:
        raise UsageError("structured_outputs could not be compiled: llguidance failed.")
    return result[0]
