// The engine's state as it changes, fetched only while somebody looks.

import { request } from "./api.js";
import { withKey } from "./api_key_dialog.js";
import { readEvents } from "./event_stream.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;
const SILENCE_MS = 10_000;
const UNAUTHORIZED = 401;

/** Reads /engine/events, again and again; `onState` gets each state, `onFailure` each failure. */
export class EngineFeed {
  constructor({ onState, onFailure }) {
    this._onState = onState;
    this._onFailure = onFailure;
    this._abort = null;
    this._model = "";
  }

  /** Watches `model`, or nothing at all with null. */
  watch(model) {
    if (model === this._model && this._abort) return;
    this._abort?.abort();
    this._abort = null;
    this._model = model;
    if (model !== null) this._run(model, (this._abort = new AbortController()));
  }

  async _run(model, abort) {
    let waitMs = FIRST_WAIT_MS;
    while (!abort.signal.aborted) {
      try {
        await this._read(model, abort.signal, () => (waitMs = FIRST_WAIT_MS));
      } catch (failure) {
        if (abort.signal.aborted) return;
        this._onFailure(failure);
        if (failure.status === UNAUTHORIZED) return this._stop(abort); // asked for, and not given
      }
      await pause(waitMs, abort.signal);
      waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
    }
  }

  /** Ends this reading; to watch again, somebody has to ask again. */
  _stop(abort) {
    if (this._abort === abort) this._abort = null;
  }

  async _read(model, signal, onAlive) {
    const path = `engine/events?model=${encodeURIComponent(model)}`;
    const silence = new AbortController();
    const both = AbortSignal.any([signal, silence.signal]);
    const response = await withKey(() => request(path, { signal: both }));
    let timer = 0;
    const rest = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    try {
      rest();
      for await (const data of readEvents(response.body)) {
        rest();
        onAlive();
        const state = JSON.parse(data);
        if (!signal.aborted && state.groups) this._onState(state);
      }
    } finally {
      clearTimeout(timer);
    }
  }
}

function pause(waitMs, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, waitMs);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
