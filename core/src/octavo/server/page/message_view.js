// How the entries of a conversation look.

import { copyFrom } from "./clipboard.js";
import { element, setText } from "./elements.js";
import { showMarkdown } from "./markdown.js";
import { swatch } from "./swatch.js";

const REASONS = {
  length: "cut at the token limit",
  content_filter: "withheld by a filter",
  tool_calls: "calls a tool",
  stopped: "stopped",
};

/** What a person said, or the result of a tool; `actions` are {onEdit}. */
export class SaidView {
  constructor(entry, { onEdit }) {
    this._entry = entry;
    this._text = element("div", { className: "text" }, entry.text);
    const who = entry.kind === "tool" ? `Result of ${entry.call.name}` : "You";
    const edit = button("Edit", () => this._edit(onEdit));
    const copy = button("Copy", () => copyFrom(copy, entry.text));
    this._tools = element("footer", {}, edit, copy);
    const head = element("h2", { className: "who" }, who);
    this.node = element("article", { className: "message said" }, head, this._text, this._tools);
  }

  _edit(onEdit) {
    const area = element("textarea", { value: this._entry.text, "aria-label": "Edit the message" });
    area.rows = Math.min(12, this._entry.text.split("\n").length + 1);
    const end = () => {
      form.replaceWith(this._text);
      this._tools.hidden = false;
      this._tools.firstChild.focus();
    };
    const send = () => {
      const text = area.value.trim();
      if (text) onEdit(this._entry, text);
    };
    const keys = (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        end();
      }
    };
    area.addEventListener("keydown", keys);
    const sending = button("Send again", send, "primary");
    const row = element("div", { className: "row" }, button("Cancel", end), sending);
    const form = element("div", { className: "edit" }, area, row);
    this._text.replaceWith(form);
    this._tools.hidden = true;
    area.focus();
  }
}

/** An answer, brought up to date by `update`. */
export class AnswerView {
  constructor(entry, { onRetry }) {
    this._answer = entry.answer;
    this._reasoning = element("div", { className: "text" });
    this._summary = element("summary", {}, "Reasoning");
    const folded = { className: "reasoning", hidden: true };
    this._folded = element("details", folded, this._summary, this._reasoning);
    this._content = element("div", { className: "text markdown" });
    this._calls = element("div", { className: "calls" });
    this._failure = element("p", { className: "failure", role: "alert", hidden: true });
    this._figures = element("span", { className: "figures" });
    this._retry = button("Retry", () => onRetry(entry));
    this._copy = button("Copy", () => copyFrom(this._copy, this._answer.content));
    const tools = element("footer", {}, this._retry, this._copy, this._figures);
    this._swatch = swatch();
    const head = element("h2", { className: "who" }, this._swatch, entry.model || "Answer");
    const parts = [head, this._folded, this._content, this._calls, this._failure, tools];
    this.node = element("article", { className: "message answer" }, ...parts);
    this.node.addEventListener("click", ({ target }) => {
      if (target.octavoText !== undefined) copyFrom(target, target.octavoText);
    });
    this.update();
  }

  update() {
    const answer = this._answer;
    this.node.classList.toggle("running", answer.isRunning);
    this._swatch.show(answer.isRunning ? answer.id : "");
    this._showReasoning();
    showMarkdown(this._content, answer.content || answer.refusal);
    this._showCalls();
    this._failure.hidden = !answer.failure;
    setText(this._failure, answer.failure ?? "");
    setText(this._figures, figuresOf(answer));
    this._retry.hidden = answer.isRunning;
    this._copy.hidden = answer.isRunning || !answer.content;
  }

  _showReasoning() {
    const { reasoning, content, isRunning } = this._answer;
    this._folded.hidden = !reasoning;
    setText(this._summary, isRunning && !content ? "Reasoning …" : "Reasoning");
    setText(this._reasoning, reasoning);
  }

  _showCalls() {
    const calls = this._answer.toolCalls;
    while (this._calls.childNodes.length < calls.length) this._calls.append(callNode());
    calls.forEach((call, index) => {
      const node = this._calls.childNodes[index];
      setText(node.querySelector(".call-name"), call?.name ?? "");
      setText(node.querySelector("code"), readable(call?.arguments ?? ""));
    });
  }
}

function callNode() {
  const head = element("div", { className: "code-head" }, element("span", {}, "Calls "));
  head.firstChild.append(element("b", { className: "call-name" }));
  const text = element("pre", { tabIndex: 0, "aria-label": "Arguments" }, element("code"));
  return element("div", { className: "code call" }, head, text);
}

function readable(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json; // not complete yet
  }
}

/** "128 tokens · 42.1 tokens/s · first after 0.31 s · 96 of 120 prompt tokens cached". */
function figuresOf(answer) {
  const parts = [];
  if (answer.isRunning && answer.firstMs === null) parts.push("waiting");
  if (answer.numTokens) parts.push(counted(answer.numTokens, "token"));
  if (answer.tokensPerS !== null) parts.push(`${answer.tokensPerS.toFixed(1)} tokens/s`);
  if (answer.firstTokenS !== null) parts.push(`first after ${seconds(answer.firstTokenS)}`);
  const cached = answer.usage?.prompt_tokens_details?.cached_tokens;
  if (cached) parts.push(`${cached} of ${answer.usage.prompt_tokens} prompt tokens cached`);
  const reason = REASONS[answer.finishReason];
  if (reason && !answer.isRunning) parts.push(reason);
  return parts.join(" · ");
}

function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`;
}

function button(label, onClick, className = "quiet") {
  return element("button", { type: "button", className, on: { click: onClick } }, label);
}
