"""Structured output: answers that follow a JSON schema, a regex, a choice or a grammar."""

from octavo.structured.params import StructuredOutputs

__all__ = ["StructuredOutputs"]
