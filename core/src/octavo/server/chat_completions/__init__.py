"""OpenAI's chat completions: their requests made turns of a chat, and turns made their answers."""

from octavo.server.chat_completions.answer import whole_answer
from octavo.server.chat_completions.chunks import stream_chunks
from octavo.server.chat_completions.reply import ReplyForm
from octavo.server.chat_completions.task import chat_task

__all__ = ["ReplyForm", "chat_task", "stream_chunks", "whole_answer"]
