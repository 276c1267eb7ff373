// POST /v1/chat/completions, streamed into an Answer.

import { ApiFailure, messageIn, request } from "./api.js";
import { readEvents } from "./event_stream.js";

/**
 * Streams into `answer` and calls `onChange` at each piece; ends when the stream does.
 * Throws ApiFailure, and AbortError when `signal` says.
 */
export async function streamInto(answer, body, { signal, onChange }) {
  const response = await request("v1/chat/completions", { body, signal });
  try {
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") return;
      answer.take(chunkOf(data), performance.now());
      onChange();
    }
  } catch (error) {
    if (error instanceof ApiFailure || error.name === "AbortError") throw error;
    throw new ApiFailure("The connection broke before the answer was complete.");
  }
  if (!answer.finishReason) {
    throw new ApiFailure("The server ended the stream before the answer was complete.");
  }
}

function chunkOf(data) {
  const chunk = JSON.parse(data);
  if (chunk.error) throw new ApiFailure(messageIn(data) || "The server stopped with an error.");
  return chunk;
}
