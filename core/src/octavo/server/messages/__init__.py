"""Anthropic's messages: their requests made turns of a chat, and answers made of blocks."""

from octavo.server.messages.run import MessageRun
from octavo.server.messages.task import counted_task, message_task

__all__ = ["MessageRun", "counted_task", "message_task"]
