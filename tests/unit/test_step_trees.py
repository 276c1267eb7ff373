"""Step trees: who declares one, who hears of it and when, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest

from octavo.errors import PluginError
from octavo.step_trees import each_step_tree, step_tree


class Registry:
    """A backend's own registry of containers."""

    def __init__(self):
        self.fields = {}

    def register(self, cls, array_fields, static_fields):
        assert cls not in self.fields, f"{cls} came twice"
        self.fields[cls] = (array_fields, static_fields)


@pytest.fixture
def registry():
    registry = Registry()
    each_step_tree(registry.register)
    return registry


def test_what_is_declared_later_arrives_as_well(registry):
    @step_tree
    @dataclass(frozen=True)
    class Weights:
        table: object
        head: object

    assert registry.fields[Weights] == (["table", "head"], [])


def test_static_fields_are_told_apart(registry):
    @step_tree(static=("size",))
    @dataclass(frozen=True)
    class Weights:
        table: object
        size: int

    assert registry.fields[Weights] == (["table"], ["size"])


def test_a_registry_is_not_told_twice(registry):
    num_trees = len(registry.fields)
    each_step_tree(registry.register)  # another backend over the same library
    assert len(registry.fields) == num_trees


def test_every_registry_is_told(registry):
    other = Registry()
    each_step_tree(other.register)
    assert other.fields == registry.fields


def test_a_backend_hears_of_every_tree_of_core_and_of_models_as_they_are_imported():
    """In a fresh process: octavo.api alone, then a model."""
    script = """
        from octavo.api import each_step_tree
        names = []
        each_step_tree(lambda cls, array_fields, static_fields: names.append(cls.__name__))
        print(*sorted(names))
        names.clear()
        import octavo.models.gpt2
        print(*sorted(names))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    at_once, later = (set(line.split()) for line in ended.stdout.splitlines())
    assert at_once == {
        *("StepBatch", "GroupBatch", "AttentionPlan", "PortableCache", "PortableLinear"),
        *("SamplingBatch", "SampleResult"),
    }
    assert later == {
        *("AttentionWeights", "LayerWeights", "DecoderWeights"),
        *("GPT2Weights", "GPT2Layer", "LayerNorm"),
    }


def test_what_is_no_dataclass_is_refused():
    class Weights:
        pass

    with pytest.raises(PluginError, match="Weights, which is no dataclass; put it above"):
        step_tree(Weights)


def test_a_static_field_that_does_not_exist_is_refused():
    @dataclass
    class Weights:
        table: object

    with pytest.raises(PluginError, match="calls 'sise' static; its fields are table"):
        step_tree(static=("sise",))(Weights)
