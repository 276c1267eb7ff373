"""One answer to a request: its tokens, its text so far, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.outputs import Logprob, Logprobs
from octavo.request import FinishReason, Request
from octavo.tokenizer import IncrementalDetokenizer, StopChecker

if TYPE_CHECKING:
    from octavo.samples import LogprobRow
    from octavo.sampling_params import SamplingParams
    from octavo.served_request import ServedRequest
    from octavo.token_mask import TokenMask
    from octavo.tokenizer import Tokenizer

__all__ = ["Completion", "Vocabulary", "logprob_entry"]


@dataclass(frozen=True)
class Vocabulary:
    """What an engine knows of its tokens: the tokenizer, if any, and which tokens end an answer."""

    size: int
    tokenizer: Tokenizer | None
    eos_token_ids: frozenset[int]


class Completion(Request):
    """A schedulable request that is one of the ``n`` answers of a ServedRequest."""

    __slots__ = (
        "_detokenizer",
        "_has_text",
        "_num_detokenized",
        "_stops",
        "bad_words_token_ids",
        "cumulative_logprob",
        "end_delivered",
        "eos_token_ids",
        "index",
        "is_special",
        "logprobs",
        "num_delivered_tokens",
        "num_pending_forks",
        "params",
        "reads_text",
        "request_key",
        "served",
        "stop_reason",
        "stop_token_ids",
        "text",
        "text_delivered",
        "token_mask",
        "vocabulary",
        "wants_prompt_logprobs",
    )

    def __init__(self, served: ServedRequest, index: int, **request_options: Any) -> None:
        params = served.params
        super().__init__(
            request_id=served.request_id if index == 0 else f"{served.request_id}#{index}",
            prompt_token_ids=served.prompt_token_ids,
            max_tokens=served.max_tokens,
            **request_options,
        )
        self.served = served
        self.index = index
        self.params: SamplingParams = params
        self.vocabulary: Vocabulary = served.vocabulary
        self.request_key: int = served.request_key
        self.eos_token_ids = frozenset() if params.ignore_eos else served.vocabulary.eos_token_ids
        self.stop_token_ids = self.eos_token_ids | frozenset(params.stop_token_ids or ())
        self.bad_words_token_ids = served.bad_words_token_ids
        self.token_mask: TokenMask | None = None
        self.num_pending_forks = params.n - 1 if index == 0 else 0
        self.wants_prompt_logprobs = index == 0 and params.prompt_logprobs is not None
        self.is_special = bool(self.num_pending_forks or self.wants_prompt_logprobs)

        self.text = ""
        self.stop_reason: int | str | None = None
        self.cumulative_logprob: float | None = None if params.logprobs is None else 0.0
        self.logprobs: Logprobs | None = None if params.logprobs is None else []
        self.num_delivered_tokens = 0
        self.text_delivered = 0
        self.end_delivered = False
        self._num_detokenized = 0
        self._detokenizer: IncrementalDetokenizer | None = None
        self._stops = StopChecker(params.stop or (), params.include_stop_str_in_output)
        # Text is needed token by token only to be streamed or searched for stop strings.
        self._has_text = params.detokenize and served.vocabulary.tokenizer is not None
        self.reads_text = self._has_text and (served.streams or bool(params.stop))

    @property
    def has_news(self) -> bool:
        """Whether tokens, or the end, have not been delivered yet."""
        return self.num_delivered_tokens < len(self.output_token_ids) or (
            self.finish_reason is not None and not self.end_delivered
        )

    def finish_reason_after(self, token_id: int) -> FinishReason | None:
        """Why the answer ends with ``token_id``, which has just been appended; None to go on."""
        if token_id in self.stop_token_ids:
            if token_id not in self.eos_token_ids:
                self.stop_reason = token_id
            return FinishReason.STOP
        if self.reads_text and self.read_text() is not None:
            return FinishReason.STOP
        if self.token_mask is not None and self.token_mask.is_finished:
            return FinishReason.STOP
        if len(self.output_token_ids) >= self.max_tokens:
            return FinishReason.LENGTH
        return None

    def read_text(self) -> str | None:
        """Detokenise what is new; the stop string that was found in it, if any."""
        new_ids = self.output_token_ids[self._num_detokenized :]
        self._num_detokenized += len(new_ids)
        new_text = self._open_detokenizer().push(new_ids)
        if len(self.output_token_ids) < self.params.min_tokens:
            self.text += new_text  # stop strings do not count yet
            return None
        emitted, stop = self._stops.push(new_text)
        self.text += emitted
        if stop is not None:
            self.stop_reason = stop
        return stop

    def complete_text(self, reason: FinishReason) -> None:
        """The text to the end; a token that stopped the answer is left out unless asked for."""
        if not self._has_text:
            return
        if isinstance(self.stop_reason, str):
            return  # cut at the stop string already
        ids = self.output_token_ids
        ends_with_stop = bool(ids) and ids[-1] in self.stop_token_ids
        leaves_out = reason is FinishReason.STOP and not self.params.include_stop_str_in_output
        end = len(ids) - 1 if ends_with_stop and leaves_out else len(ids)
        detokenizer = self._open_detokenizer()
        rest = detokenizer.push(ids[self._num_detokenized : end]) + detokenizer.flush()
        emitted, _ = self._stops.push(rest)
        self.text += emitted + self._stops.flush()

    def _open_detokenizer(self) -> IncrementalDetokenizer:
        if self._detokenizer is None:
            tokenizer = self.vocabulary.tokenizer
            if tokenizer is None:
                raise RuntimeError("text was asked for without a tokenizer")
            self._detokenizer = IncrementalDetokenizer(
                tokenizer,
                skip_special_tokens=self.params.skip_special_tokens,
                kept_special_tokens=self.params.kept_special_tokens,
                spaces_between_special_tokens=self.params.spaces_between_special_tokens,
                prompt_token_ids=self.prompt_token_ids,
            )
        return self._detokenizer

    def add_logprobs(self, token_id: int, row: LogprobRow) -> None:
        """Note the log-probability of the token just sampled and of its likeliest rivals."""
        if self.logprobs is None or self.cumulative_logprob is None:
            return
        self.cumulative_logprob += row[0]
        self.logprobs.append(
            logprob_entry(self.vocabulary, token_id, row, self.params.logprobs or 0)
        )


def logprob_entry(
    vocabulary: Vocabulary, token_id: int, row: LogprobRow, num_logprobs: int
) -> dict[int, Logprob]:
    """One position's entry: the chosen token first, then the ``num_logprobs`` likeliest."""
    logprob, rank, top_ids, top_logprobs = row
    entry = {token_id: Logprob(logprob, rank, _decoded(vocabulary, token_id))}
    likeliest = zip(top_ids[:num_logprobs], top_logprobs[:num_logprobs], strict=True)
    for place, (top_id, top_logprob) in enumerate(likeliest, 1):
        if top_id not in entry:
            entry[top_id] = Logprob(top_logprob, place, _decoded(vocabulary, top_id))
    return entry


def _decoded(vocabulary: Vocabulary, token_id: int) -> str | None:
    if vocabulary.tokenizer is None:
        return None
    return vocabulary.tokenizer.decode([token_id], skip_special_tokens=False)
