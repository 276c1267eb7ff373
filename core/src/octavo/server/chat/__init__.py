"""A turn of a chat, free of any interface: what goes in, and the events that come out."""

from octavo.server.chat.task import ChatTask, ToolChoice
from octavo.server.chat.turn import AnswerDelta, ChatTurn, ChatUsage

__all__ = ["AnswerDelta", "ChatTask", "ChatTurn", "ChatUsage", "ToolChoice"]
