// The parameters of requests: the form, what it says, and keeping it over a reload.

import { apiKey } from "./api.js";
import { askForKey } from "./api_key_dialog.js";
import { element } from "./elements.js";

const STORAGE_NAME = "octavo-parameters";
const NUMBERS = [
  { name: "temperature", min: 0, max: 2, step: 0.05 },
  { name: "top_p", min: 0, max: 1, step: 0.01 },
  { name: "top_k", min: 0, step: 1 },
  { name: "min_p", min: 0, max: 1, step: 0.01 },
  { name: "max_tokens", min: 1, step: 1 },
  { name: "seed", step: 1 },
  { name: "presence_penalty", min: -2, max: 2, step: 0.1 },
  { name: "frequency_penalty", min: -2, max: 2, step: 0.1 },
  { name: "repetition_penalty", min: 0.1, max: 2, step: 0.05 },
];
// What the page itself decides.
const RESERVED = ["messages", "model", "stream", "stream_options", "n"];

/** What the user set, as fields of a request. */
export class Parameters {
  constructor(form) {
    this._form = form;
    this._build();
    this._restore();
    form.addEventListener("input", () => this._save());
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  get systemText() {
    return this._value("system").trim();
  }

  /** The fields that are set; throws an Error that says which one cannot be used. */
  fields() {
    const fields = {};
    for (const { name } of NUMBERS) {
      const input = this._form.elements.namedItem(name);
      if (input.validity.badInput) throw new Error(`${name} is not a number.`);
      if (input.value !== "") fields[name] = Number(input.value);
    }
    const stops = this._value("stop").split("\n").filter(Boolean);
    if (stops.length) fields.stop = stops;
    return { ...fields, ...this._more() };
  }

  _more() {
    const text = this._value("more").trim();
    if (!text) return {};
    const more = parsedObject(text);
    const reserved = RESERVED.filter((name) => name in more);
    if (reserved.length) throw new Error(`“More fields” cannot set ${reserved.join(", ")}: this page does.`);
    return more;
  }

  _value(name) {
    return this._form.elements.namedItem(name).value;
  }

  _build() {
    const more = '{"response_format": {"type": "json_object"}}';
    this._form.append(
      area("system", "System message", "How the model should behave", 2),
      element("div", { className: "numbers" }, ...NUMBERS.map(numberField)),
      area("stop", "Stop at (one text a line)", "", 1),
      area("more", "More fields (JSON): tools, response_format, …", more, 2),
      this._buttons(),
    );
  }

  _buttons() {
    const reset = element("button", { type: "button", className: "quiet" }, "Reset");
    reset.addEventListener("click", () => {
      this._form.reset();
      this._save();
    });
    const key = element("button", { type: "button", className: "quiet" }, "API key …");
    key.addEventListener("click", () => {
      const kept = apiKey.get() ? "A key is set. An empty field forgets it." : "No key is set.";
      askForKey(kept);
    });
    return element("div", { className: "row" }, key, reset);
  }

  _save() {
    const entries = [...this._form.elements].filter((field) => field.name && field.value);
    const values = Object.fromEntries(entries.map((field) => [field.name, field.value]));
    localStorage.setItem(STORAGE_NAME, JSON.stringify(values));
  }

  _restore() {
    const values = stored();
    for (const field of this._form.elements) {
      if (field.name && typeof values[field.name] === "string") field.value = values[field.name];
    }
  }
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(STORAGE_NAME)) ?? {};
  } catch {
    return {}; // from another version, or from somebody else on this origin
  }
}

function parsedObject(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`“More fields” is not JSON: ${error.message}.`);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new Error('“More fields” must be a JSON object, such as {"min_tokens": 8}.');
  }
  return value;
}

function numberField({ name, min = "", max = "", step }) {
  const properties = { type: "number", name, min, max, step, placeholder: "default" };
  const input = element("input", { ...properties, inputMode: "decimal", autocomplete: "off" });
  return element("label", {}, element("span", { className: "name" }, name), input);
}

function area(name, label, placeholder, rows) {
  const input = element("textarea", { name, placeholder, rows, spellcheck: false });
  return element("label", { className: "wide" }, element("span", { className: "name" }, label), input);
}
