// A conversation: what was said, in order.

/** Entries are {kind: "user", text}, {kind: "tool", call, text} and {kind: "answer", answer}. */
export class Conversation {
  constructor() {
    this.entries = [];
  }

  get isEmpty() {
    return this.entries.length === 0;
  }

  /** The messages that the next request begins with. */
  messages(systemText) {
    const said = this.entries.filter(({ answer }) => !answer || !answer.isEmpty).map(messageOf);
    return systemText ? [{ role: "system", content: systemText }, ...said] : said;
  }

  add(entry) {
    this.entries.push(entry);
    return entry;
  }

  /** Drops `entry` and all after it. */
  cutAt(entry) {
    const index = this.entries.indexOf(entry);
    if (index >= 0) this.entries.length = index;
  }

  /** The calls of the last answer that have no result yet. */
  get openCalls() {
    const index = this.entries.findLastIndex(({ kind }) => kind === "answer");
    if (index < 0) return [];
    const given = new Set(this.entries.slice(index + 1).map(({ call }) => call));
    const calls = this.entries[index].answer.toolCalls.filter((call) => call?.name);
    return calls.filter((call) => !given.has(call));
  }
}

function messageOf({ kind, text, call, answer }) {
  if (kind === "answer") return answer.toMessage();
  if (kind === "tool") return { role: "tool", tool_call_id: call.id, content: text };
  return { role: "user", content: text };
}
