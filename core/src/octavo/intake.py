"""Makes of what a caller sends a request that the scheduler can run, or says why it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.completion import Completion
from octavo.errors import UsageError
from octavo.prompts import Prompt, check_text, read_prompt
from octavo.served_request import ServedRequest
from octavo.structured.compiler import GrammarCompiler
from octavo.structured.params import checked_structured_outputs

if TYPE_CHECKING:
    from octavo.completion import Vocabulary
    from octavo.models.base import Model
    from octavo.sampling_params import SamplingParams
    from octavo.token_mask import TokenMask

__all__ = ["Intake"]


class Intake:
    """Reads prompts and parameters for one model; compiled grammars are kept for the next."""

    def __init__(
        self, model: Model, vocabulary: Vocabulary, *, max_model_len: int, max_logprobs: int
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._max_model_len = max_model_len
        self._max_logprobs = max_logprobs
        self._grammars = GrammarCompiler(vocabulary)

    def read(
        self,
        request_id: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        request_key: int,
        priority: int,
        cache_salt: str | None,
        token_mask: TokenMask | None,
    ) -> Completion:
        """The first answer to a new request. Raises UsageError for what can never be served.

        ``request_key`` keys its random numbers; 0 is the key of requests with their own seed.
        """
        params = params.validated_for(self._vocabulary.size, self._max_logprobs)
        text, token_ids = read_prompt(prompt, params, self._vocabulary, self._max_model_len)
        room = self._max_model_len - len(token_ids)
        served = ServedRequest(
            request_id,
            text,
            token_ids,
            params,
            max_tokens=room if params.max_tokens is None else min(params.max_tokens, room),
            request_key=request_key,
            vocabulary=self._vocabulary,
            bad_words_token_ids=_bad_words(params, self._vocabulary),
        )
        completion = Completion(
            served,
            0,
            priority=priority,
            cache_salt=self._cache_salt(cache_salt, len(token_ids)),
            use_prefix_cache=params.prompt_logprobs is None,
        )
        completion.token_mask = self._token_mask(params, token_mask)
        return completion

    def _token_mask(self, params: SamplingParams, given: TokenMask | None) -> TokenMask | None:
        structured = checked_structured_outputs("structured_outputs", params.structured_outputs)
        if structured is None:
            return given
        if given is not None:
            raise UsageError(
                "A request has structured_outputs and a token_mask of its own; leave one out."
            )
        return self._grammars.mask_for(structured, ignore_eos=params.ignore_eos)

    def _cache_salt(self, salt: str | None, prompt_len: int) -> tuple[str | None, int] | None:
        model_salt = self._model.prefix_salt(prompt_len)
        return None if salt is None and model_salt == 0 else (salt, model_salt)


def _bad_words(params: SamplingParams, vocabulary: Vocabulary) -> list[list[int]]:
    if vocabulary.tokenizer is None:
        if params.bad_words or params.stop:
            name = "bad_words" if params.bad_words else "stop"
            raise UsageError(
                f"{name} needs a tokenizer, and this engine has none; use logit_bias or "
                "stop_token_ids."
            )
        return []
    for word in params.bad_words or ():
        check_text("A word of bad_words", word)
    encode = vocabulary.tokenizer.encode
    spellings = [
        encode(prefix + word, add_special_tokens=False)
        for word in params.bad_words or ()
        for prefix in ("", " ")
    ]
    return [ids for i, ids in enumerate(spellings) if ids and ids not in spellings[:i]]
