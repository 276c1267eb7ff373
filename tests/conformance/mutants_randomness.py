"""Backends and plugins that draw in their own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from mutant import Mutant
from op_mutants import OpMutants
from plain_backend import DEVICE, SPEC, PlainBackend, PlainOps

import octavo.philox
import octavo.sampler
from octavo.testing.subject import Subject

MUTANTS = OpMutants("randomness")
ONE_PART = np.float32(2.0**-24)


@dataclass(frozen=True)
class PatchedSubject(Subject):
    """A subject whose plugin has put a function of its own in the place of one of core's."""

    restore: Callable[[], None] = lambda: None

    def close(self):
        super().close()
        self.restore()


def patched_by(module, name, caught_by, says, *, only=True):
    """Decorate a function of core's own one and its arguments, which a plugin puts there."""

    def register(patch):
        def make_subject():
            original = getattr(module, name)
            setattr(module, name, partial(patch, original))
            plain = Subject.of(SPEC, DEVICE)
            return PatchedSubject(
                plain.policy,
                plain.plugins,
                plain.resolution,
                restore=partial(setattr, module, name, original),
            )

        MUTANTS.append(
            Mutant(
                patch.__name__,
                patch.__doc__,
                f"randomness.{caught_by}",
                says,
                make_subject=make_subject,
                only=only,
            )
        )
        return patch

    return register


@patched_by(octavo.philox, "uniforms", "philox", r"philox\.uniforms gives .*'seed': 4294967296")
def half_the_seed(original, seeds, request_keys, sample_indices, positions):
    """A plugin replaces octavo.philox.uniforms; of the seed it takes 32 bits."""
    return original(seeds & np.uint64(0xFFFFFFFF), request_keys, sample_indices, positions)


@patched_by(
    octavo.philox, "philox4x32", "philox", "philox4x32 gives .* known answer is", only=False
)
def one_more_round(original, counter, key):
    """A plugin replaces the generator by one whose output is stirred once more."""
    return original(original(counter, key), key)


@patched_by(octavo.sampler, "uniforms", "draws", r"picks token \d+ from the log-probabilities")
def half_the_seed_of_the_sampler(original, seeds, request_keys, sample_indices, positions):
    """A plugin replaces what the sampler draws with; of the seed it takes 32 bits."""
    return original(seeds & np.uint64(0xFFFFFFFF), request_keys, sample_indices, positions)


@patched_by(octavo.sampler, "uniforms", "draws", "sample_index=1 and .* picks token", only=False)
def one_draw_for_all_answers(original, seeds, request_keys, sample_indices, positions):
    """A plugin replaces what the sampler draws with; several answers get the same draw."""
    return original(seeds, request_keys, np.zeros(len(seeds)), positions)


@MUTANTS.caught_by("draws", r"picks token \d+ from the log-probabilities", only=False)
class CapturedUniforms(PlainBackend):
    """A captured graph reads the uniforms that it was captured with, for ever."""

    def compile(self, step):
        captured = {}

        def replay(weights, caches, batch, plans, sampling, prompt_targets=None):
            uniform = captured.setdefault(len(sampling.uniform), sampling.uniform)
            sampling = replace(sampling, uniform=uniform)
            return step(weights, caches, batch, plans, sampling, prompt_targets)

        return replay


class ChangedBatch(PlainOps):
    """Samples from another batch than the one it was given."""

    def sample(self, logits, sampling):
        logits, changes = self.changed(np.array(logits), sampling)
        return super().sample(logits, replace(sampling, **changes))


@MUTANTS.caught_by("sampling", r"Token \d+ was sampled, expected \d+", only=False)
class OwnGenerator(ChangedBatch):
    """The device draws with a generator of its own."""

    rng = np.random.default_rng(0)

    def changed(self, logits, sampling):
        drawn = self.rng.random(len(logits), np.float32)
        return logits, {"uniform": drawn}


@MUTANTS.caught_by("sampling", r"Token \d+ was sampled, expected \d+", only=False)
class UniformOfTheNextRow(ChangedBatch):
    """Row i is drawn with the uniform of row i + 1."""

    def changed(self, logits, sampling):
        return logits, {"uniform": np.roll(sampling.uniform, -1)}


@MUTANTS.caught_by("sampling", r"expected \d+, in row \d+ of 'top_p'")
class TopPKeepsOneMore(ChangedBatch):
    """A token stays though the heavier ones alone reach top_p exactly."""

    def changed(self, logits, sampling):
        more = np.minimum(sampling.top_p + 4 * ONE_PART, np.float32(1))
        return logits, {"top_p": np.where(sampling.top_p < 1, more, sampling.top_p)}


@MUTANTS.caught_by("sampling", r"expected \d+, in row \d+ of 'top_k'")
class TopKDropsEquals(ChangedBatch):
    """Of equal logits at the k-th place, those beyond k are dropped."""

    def changed(self, logits, sampling):
        for row, top_k in zip(logits, sampling.top_k, strict=True):
            if 0 < top_k < len(row) and sampling.plain:
                row[np.argsort(-row, kind="stable")[top_k:]] = -np.inf
        return logits, {}


@MUTANTS.caught_by("sampling", r"expected \d+, in row \d+ of 'min_p'")
class MinPBeforeTemperature(ChangedBatch):
    """min_p looks at the probabilities before the temperature has changed them."""

    def changed(self, logits, sampling):
        if not sampling.plain:
            return logits, {}
        with np.errstate(divide="ignore", invalid="ignore"):
            bounds = logits.max(axis=1) + np.log(sampling.min_p)
            logits[logits < bounds[:, None]] = -np.inf
        return logits, {"min_p": np.zeros_like(sampling.min_p)}


@MUTANTS.caught_by("sampling", r"in row \d+ of 'top_k'")
class TopKBelowTheVocabulary(ChangedBatch):
    """A partial sort needs k to be less than the number of tokens."""

    def changed(self, logits, sampling):
        return logits, {"top_k": np.minimum(sampling.top_k, logits.shape[1] - 1)}


@MUTANTS.caught_by("sampling", "in row . of 'more adjustments'")
class OneBlockOfAdjustments(ChangedBatch):
    """Launches one block of 1024 threads, and each applies one bias."""

    def changed(self, logits, sampling):
        names = ("bias_rows", "bias_ids", "bias_values")
        return logits, {name: getattr(sampling, name)[:1024] for name in names}


@MUTANTS.caught_by("sampling", "in row . of 'more adjustments'")
class CountsOfAByte(ChangedBatch):
    """Occurrences are kept as signed bytes."""

    def changed(self, logits, sampling):
        return logits, {"seen_counts": sampling.seen_counts.astype(np.int8).astype(np.int32)}


@MUTANTS.caught_by("sampling", r"in row \d+ of 'top_p'")
class TinyTopPIsOff(ChangedBatch):
    """What looks like 0 is taken for unset."""

    def changed(self, logits, sampling):
        return logits, {"top_p": np.where(sampling.top_p < 1e-3, 1, sampling.top_p)}


@MUTANTS.caught_by("sampling", r"in row \d+ of 'temperature'")
class NearlyGreedyIsGreedy(ChangedBatch):
    """Temperatures below 0.05 are rounded to 0, for fear of dividing by them."""

    def changed(self, logits, sampling):
        return logits, {
            "temperature": np.where(sampling.temperature < 0.05, 0, sampling.temperature)
        }


@MUTANTS.caught_by("sampling", "in row . of '(equal tokens|edges of the draw)'")
class DrawnAtTheEdge(ChangedBatch):
    """A token is drawn as soon as the running sum reaches the target: >= in place of >."""

    def changed(self, logits, sampling):
        return logits, {"uniform": np.maximum(sampling.uniform - ONE_PART, np.float32(0))}


@MUTANTS.caught_by("sampling", r"SampleResult\.token_ids is of int64; expected int32")
class WideTokenIds(PlainOps):
    """Returns what argmax does: indices of 64 bits."""

    def sample(self, logits, sampling):
        result = super().sample(logits, sampling)
        return replace(result, token_ids=result.token_ids.astype(np.int64))


@MUTANTS.caught_by("sampling", r"SampleResult\.logprobs is an array, though num_logprobs is -1")
class LogprobsForAll(PlainOps):
    """Takes -1 for 0, and computes log-probabilities in every step."""

    def sample(self, logits, sampling):
        return super().sample(logits, replace(sampling, num_logprobs=max(0, sampling.num_logprobs)))


@MUTANTS.caught_by("sampling", r"in row \d+ of 'penalties'")
class NoRewardForRepetition(ChangedBatch):
    """A repetition penalty below 1 is taken for a mistake."""

    def changed(self, logits, sampling):
        return logits, {"repetition_penalty": np.maximum(sampling.repetition_penalty, 1)}


@MUTANTS.caught_by("sampling", "in row . of 'greedy'")
class LastOfEquals(PlainOps):
    """Of several likeliest tokens, greedy sampling takes the last."""

    def sample(self, logits, sampling):
        result = super().sample(logits, sampling)
        if sampling.plain and sampling.all_greedy and sampling.num_logprobs < 0:
            last = logits.shape[1] - 1 - np.argmax(logits[:, ::-1], axis=1)
            token_ids = np.where(result.valid, last, 0).astype(np.int32)
            return replace(result, token_ids=token_ids)
        return result


@MUTANTS.caught_by("sampling", "in row . of 'penalties'")
class RepetitionDivides(ChangedBatch):
    """The repetition penalty divides negative logits as well, which makes them likelier."""

    def changed(self, logits, sampling):
        rows, ids = sampling.seen_rows, sampling.seen_ids
        seen, penalty = logits[rows, ids], sampling.repetition_penalty[rows]
        logits[rows, ids] = np.where(seen < 0, seen / penalty**2, seen)
        return logits, {}


@MUTANTS.caught_by("sampling", "in row . of 'mask, bias and penalties'")
class BiasAfterPenalties(ChangedBatch):
    """The bias is added to what the penalties have left."""

    def changed(self, logits, sampling):
        penalty = np.ones(logits.shape, np.float32)
        penalty[sampling.seen_rows, sampling.seen_ids] = sampling.repetition_penalty[
            sampling.seen_rows
        ]
        place = (sampling.bias_rows, sampling.bias_ids)
        values = np.where(logits[place] > 0, penalty[place], 1) * sampling.bias_values
        return logits, {"bias_values": values.astype(np.float32)}


@MUTANTS.caught_by(
    "sampling", r"SampleResult\.valid is True in row \d+ of 'unusable rows'", only=False
)
class AllRowsValid(PlainOps):
    """Rows of NaN are said to be usable."""

    def sample(self, logits, sampling):
        return replace(super().sample(logits, sampling), valid=None)


@MUTANTS.caught_by("sampling", "(logprob|rank|top_ids|top_logprobs) .*in row . of 'log-prob")
class LogprobsOfAdjustedLogits(PlainOps):
    """Log-probabilities are those after penalties, bias and mask."""

    def sample(self, logits, sampling):
        result = super().sample(logits, sampling)
        if sampling.num_logprobs < 0:
            return result
        adjusted = np.array(logits)
        np.add.at(adjusted, (sampling.bias_rows, sampling.bias_ids), sampling.bias_values)
        found = self.token_logprobs(adjusted, result.token_ids, sampling.num_logprobs)
        return replace(found, valid=result.valid)


@MUTANTS.caught_by("token_logprobs", "The rank of token . is .*number of likelier tokens")
class RankAmongEquals(PlainOps):
    """The rank of a token counts all that are as likely as it."""

    def token_logprobs(self, logits, token_ids, num_logprobs):
        result = super().token_logprobs(logits, token_ids, num_logprobs)
        chosen = np.take_along_axis(logits, token_ids[:, None], axis=1)
        return replace(result, ranks=(logits >= chosen).sum(axis=1, dtype=np.int32))


@MUTANTS.caught_by("token_logprobs", r"logprob is \[?nan", only=False)
class NoMaximum(PlainOps):
    """log(sum(exp)) without the maximum taken off: zero, or infinity, for large logits."""

    def token_logprobs(self, logits, token_ids, num_logprobs):
        result = super().token_logprobs(logits, token_ids, num_logprobs)
        with np.errstate(all="ignore"):
            total = np.log(np.exp(logits).sum(axis=1))
            chosen = np.take_along_axis(logits, token_ids[:, None], axis=1)[:, 0]
            lost = np.where(np.isfinite(total), result.logprobs, chosen - total + np.nan)
        return replace(result, logprobs=lost)
