// One answer as it arrives: its parts, and what it cost.

/** What the chunks of a chat completion come to. */
export class Answer {
  constructor(startedMs) {
    this.id = "";
    this.content = "";
    this.reasoning = "";
    this.refusal = "";
    this.toolCalls = []; // {id, name, arguments}
    this.finishReason = null;
    this.usage = null;
    this.failure = null;
    this.isRunning = true;
    this.startedMs = startedMs;
    this.firstMs = null;
    this.lastMs = null;
    this.numPieces = 0;
  }

  /** Takes one chunk of the stream, which came at `nowMs`. */
  take(chunk, nowMs) {
    this.id ||= chunk.id ?? "";
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    if (this._takeDelta(choice.delta ?? {})) {
      this.firstMs ??= nowMs;
      this.lastMs = nowMs;
      this.numPieces += 1;
    }
    this.finishReason = choice.finish_reason ?? this.finishReason;
  }

  _takeDelta(delta) {
    this.content += delta.content ?? "";
    this.reasoning += delta.reasoning_content ?? "";
    this.refusal += delta.refusal ?? "";
    for (const call of delta.tool_calls ?? []) this._takeCall(call);
    const parts = [delta.content, delta.reasoning_content, delta.refusal, delta.tool_calls?.length];
    return parts.some(Boolean);
  }

  _takeCall({ index = 0, id, function: part = {} }) {
    this.toolCalls[index] ??= { id: "", name: "", arguments: "" };
    const call = this.toolCalls[index];
    call.id ||= id ?? "";
    call.name += part.name ?? "";
    call.arguments += part.arguments ?? "";
  }

  get isEmpty() {
    return !(this.content || this.reasoning || this.refusal || this.toolCalls.length);
  }

  /** Seconds to the first token; null before it. */
  get firstTokenS() {
    return this.firstMs === null ? null : (this.firstMs - this.startedMs) / 1000;
  }

  /** Tokens so far; the server's count where it gives one, else that of the pieces. */
  get numTokens() {
    return this.usage?.completion_tokens ?? this.numPieces;
  }

  /** Tokens a second after the first one; null while that says nothing. */
  get tokensPerS() {
    const seconds = (this.lastMs - this.firstMs) / 1000;
    return this.numTokens > 1 && seconds > 0 ? (this.numTokens - 1) / seconds : null;
  }

  /** As the API takes it back in the next request; reasoning is not part of it. */
  toMessage() {
    const message = { role: "assistant", content: this.content || this.refusal };
    const calls = this.toolCalls.filter((call) => call?.name);
    if (calls.length) {
      message.content = this.content || null;
      message.tool_calls = calls.map(({ id, name, arguments: text }) => ({
        id,
        type: "function",
        function: { name, arguments: text },
      }));
    }
    return message;
  }
}
