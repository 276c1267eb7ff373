// The chat: sending, stopping, asking again, and keeping the view at the end.

import { Answer } from "./answer.js";
import { withKey } from "./api_key_dialog.js";
import { streamInto } from "./chat_stream.js";
import { Conversation } from "./conversation.js";
import { announce, byId, element, setText } from "./elements.js";
import { AnswerView, SaidView } from "./message_view.js";

const NEAR_END_PX = 80;

/** The chat over the page's elements; `models` and `parameters` say what requests ask for. */
export class Chat {
  constructor({ models, parameters }) {
    this._models = models;
    this._parameters = parameters;
    this._conversation = new Conversation();
    this._abort = null;
    this._prompt = byId("prompt");
    this._transcript = byId("transcript");
    this._messages = byId("messages");
    this._listen();
    this.clear();
  }

  get isRunning() {
    return this._abort !== null;
  }

  /** Stops the answer that is being written; what there is of it stays. */
  stop() {
    this._abort?.abort();
  }

  /** Begins a new conversation. */
  clear() {
    this.stop();
    this._abort = null;
    this._conversation = new Conversation();
    const hint = "Ask something, and watch the engine work.";
    this._messages.replaceChildren(element("p", { className: "empty" }, hint));
    this._showComposer();
    this._prompt.focus();
  }

  /** Says that nothing can be asked yet, and offers to try again. */
  fail(message, onRetry) {
    const again = element("button", { type: "button", className: "quiet" }, "Try again");
    const failure = element("p", { className: "failure", role: "alert" }, message, " ", again);
    again.addEventListener("click", () => {
      failure.remove();
      onRetry();
    });
    this._messages.append(failure);
  }

  _listen() {
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this._send();
    });
    byId("stop").addEventListener("click", () => this.stop());
    this._prompt.addEventListener("input", () => this._fitPrompt());
    this._prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this._send();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.isRunning && !document.querySelector("dialog[open]")) this.stop();
    });
  }

  _send() {
    const text = this._prompt.value.trim();
    if (!text || this.isRunning) return;
    const [call] = this._conversation.openCalls;
    this._say(call ? { kind: "tool", call, text } : { kind: "user", text });
    this._prompt.value = "";
    this._fitPrompt();
    if (this._conversation.openCalls.length === 0) this._answer();
    else this._showComposer();
  }

  _say(entry) {
    if (this._conversation.isEmpty) this._messages.replaceChildren();
    this._conversation.add(entry);
    entry.view = new SaidView(entry, { onEdit: (edited, text) => this._resend(edited, text) });
    this._messages.append(entry.view.node);
    this._scrollToEnd();
  }

  _resend(entry, text) {
    if (this.isRunning) return;
    this._cutAt(entry);
    this._say({ ...entry, text });
    this._answer();
    this._prompt.focus();
  }

  _retry(entry) {
    if (this.isRunning) return;
    this._cutAt(entry);
    this._answer();
    this._prompt.focus();
  }

  _cutAt(entry) {
    while (this._messages.lastChild && this._messages.lastChild !== entry.view.node) {
      this._messages.lastChild.remove();
    }
    entry.view.node.remove();
    this._conversation.cutAt(entry);
  }

  async _answer() {
    const conversation = this._conversation;
    const messages = conversation.messages(this._parameters.systemText);
    const answer = new Answer(performance.now());
    const entry = conversation.add({ kind: "answer", answer, model: this._models.selected });
    entry.view = new AnswerView(entry, { onRetry: () => this._retry(entry) });
    this._messages.append(entry.view.node);
    this._scrollToEnd();
    await this._run(entry, messages);
    if (this._conversation === conversation) {
      this._follow(() => entry.view.update());
      this._showComposer();
      announce(answer.failure ? "The request failed." : "The answer is complete.");
    }
  }

  async _run({ answer, view, model }, messages) {
    const abort = new AbortController();
    this._abort = abort;
    this._showComposer();
    const onChange = this._eachFrame(() => view.update());
    try {
      const fields = this._parameters.fields();
      const body = { ...fields, model, messages, stream: true, stream_options: STREAM_OPTIONS };
      await withKey(() => {
        answer.startedMs = performance.now();
        return streamInto(answer, body, { signal: abort.signal, onChange });
      });
    } catch (error) {
      if (error.name === "AbortError") answer.finishReason = "stopped";
      else answer.failure = failureText(error);
    }
    answer.isRunning = false;
    if (this._abort === abort) this._abort = null;
  }

  /** A function that has `work` done once before the next frame, however often it is called. */
  _eachFrame(work) {
    let isDue = false;
    return () => {
      if (isDue) return;
      isDue = true;
      requestAnimationFrame(() => {
        isDue = false;
        this._follow(work);
      });
    };
  }

  /** Does `work` and stays at the end of the conversation, if the reader was there. */
  _follow(work) {
    const { scrollTop, scrollHeight, clientHeight } = this._transcript;
    work();
    if (scrollHeight - scrollTop - clientHeight < NEAR_END_PX) this._scrollToEnd();
  }

  _scrollToEnd() {
    this._transcript.scrollTop = this._transcript.scrollHeight;
  }

  _showComposer() {
    const [call] = this._conversation.openCalls;
    const [send, stop] = [byId("send"), byId("stop")];
    const hadFocus = [send, stop].includes(document.activeElement);
    send.hidden = this.isRunning;
    stop.hidden = !this.isRunning;
    if (hadFocus) (this.isRunning ? stop : this._prompt).focus();
    this._prompt.placeholder = call ? `Result of ${call.name}` : "Ask something";
    setText(byId("prompt-label"), call ? `Result of ${call.name}` : "Message");
    this._messages.setAttribute("aria-busy", String(this.isRunning));
  }

  _fitPrompt() {
    this._prompt.style.height = "auto";
    this._prompt.style.height = `${this._prompt.scrollHeight}px`;
  }
}

const STREAM_OPTIONS = { include_usage: true, continuous_usage_stats: true };

function failureText(error) {
  const wait = error.retryAfterS ? ` Try again in ${error.retryAfterS} s.` : "";
  switch (error.status) {
    case 429:
      return `The server is busy: ${error.message}${wait}`;
    case 503:
      return `The server cannot answer now: ${error.message}${wait}`;
    default:
      return error.message;
  }
}
