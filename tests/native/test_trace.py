"""Traced arrays: what model code may do with them, and what ends a recording."""

from __future__ import annotations

import numpy as np
import pytest

from octavo_cpu.native.instruction import Opcode
from octavo_cpu.native.recording import Recording
from octavo_cpu.native.rows import Rows, Untraceable


def traced(*shape, rows="tokens"):
    recording = Recording()
    return recording, recording.argument(0, shape, np.dtype(np.float32), rows)


def opcodes(recording):
    return [Opcode(np.frombuffer(code[:4], np.int32)[0]) for code in recording.code]


def test_slices_and_reshapes_of_rows_are_views_for_any_number_of_rows():
    recording, x = traced(5, 24)
    tokens, width = x.shape
    part = x[:, 8:20].reshape(tokens, 3, 4)
    assert isinstance(tokens, Rows)
    assert width == 24
    assert part.shape[0] is tokens
    assert (part.shape[1:], part.strides, part.offset) == ((3, 4), (24, 4, 1), 8)
    assert part.reshape(-1, 12).shape[0] is tokens
    assert recording.code == []
    assert recording.bound == {}


def test_a_reshape_that_no_view_can_be_copies_first():
    recording, x = traced(5, 4, 6)
    joined = x[:, :, 2:5].reshape(x.shape[0], 12)
    assert joined.strides == (12, 1)
    assert opcodes(recording) == [Opcode.COPY]
    assert recording.bound == {}


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x.shape[0] + 1,
        lambda x: x.shape[0] == 5,
        lambda x: x.shape[0] // 2,
        lambda x: list(range(x.shape[0])),
        lambda x: np.zeros(x.shape[0]),
        len,
        lambda x: x[:3],
        lambda x: x.reshape(x.shape[0] * 24),
        lambda x: x.reshape(-1),
        lambda x: x.reshape(5, 24),
    ],
)
def test_what_needs_the_number_of_rows_binds_the_recording_to_it(use):
    recording, x = traced(5, 24)
    use(x)
    assert recording.bound == {"tokens": 5}


@pytest.mark.parametrize(
    "use",
    [
        np.asarray,
        bool,
        list,
        lambda x: x.T,
        lambda x: x.astype(np.float32),
        lambda x: x[0],
        lambda x: x[::2],
        lambda x: x == x,
        np.sum,
        lambda x: np.ones((5, 24), np.float32) + x,
        lambda x: x + np.float64(1).reshape(1),
    ],
)
def test_what_instructions_cannot_say_ends_the_attempt(use):
    with pytest.raises(Untraceable):
        use(traced(5, 24)[1])


def test_arithmetic_takes_rows_a_row_for_all_and_numbers():
    recording, x = traced(5, 8)
    (x + x) * 0.1 - np.ones(8, np.float32)
    assert opcodes(recording) == [Opcode.ADD, Opcode.MULTIPLY, Opcode.SUBTRACT]
    assert recording.bound == {}
    assert len(recording.open_sizes["tokens"]) == 3
