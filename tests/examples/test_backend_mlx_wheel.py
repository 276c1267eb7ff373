"""The MLX example as a user has it: built as a wheel, installed outside the checkout."""

from __future__ import annotations

import pytest
from clean_environment import generate

pytest.importorskip("mlx.core", reason="the example runs on mlx, which is not installed")


@pytest.fixture(scope="module")
def environment(clean_environment):
    with clean_environment.installed("examples/backend-mlx", remove="octavo-mlx-example"):
        yield clean_environment


def test_it_is_found_by_its_entry_point(environment):
    assert "mlx:0" in environment.run("octavo", "devices")


def test_it_generates_what_numpy_does_whatever_is_swapped(environment, tiny_llama):
    found = generate(environment, tiny_llama, "mlx", 200_000)
    expected = generate(environment, tiny_llama, "cpu", 10_000_000)
    assert (found["backend"], found["num_swaps"] > 0) == ("mlx", True)
    assert found["rounds"] == expected["rounds"]


def test_it_conforms(environment):
    last_line = environment.run("octavo", "conform", "mlx", "--no-performance").splitlines()[-1]
    assert ", 0 failed" in last_line
