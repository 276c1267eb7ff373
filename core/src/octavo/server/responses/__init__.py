"""OpenAI's responses: conversations of items, kept between turns, and events of answers."""

from octavo.server.responses.background import cancel, run_in_background
from octavo.server.responses.ids import new_id
from octavo.server.responses.items import input_items
from octavo.server.responses.reply import ReplyForm, new_response
from octavo.server.responses.run import ResponseRun
from octavo.server.responses.store import ResponseStore, StoredResponse
from octavo.server.responses.task import response_task

__all__ = [
    "ReplyForm",
    "ResponseRun",
    "ResponseStore",
    "StoredResponse",
    "cancel",
    "input_items",
    "new_id",
    "new_response",
    "response_task",
    "run_in_background",
]
