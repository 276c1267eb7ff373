// The question for an API key, asked when the server answers 401.

import { apiKey } from "./api.js";
import { byId, setText } from "./elements.js";

let asking = null;

/** Resolves to whether a key was given; two who ask at once get one dialog. */
export function askForKey(reason) {
  asking ??= ask(reason).finally(() => {
    asking = null;
  });
  return asking;
}

function ask(reason) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  setText(byId("key-reason"), reason);
  input.value = "";
  dialog.returnValue = "";
  byId("key-form").onsubmit = () => {
    const key = input.value.trim();
    if (key) apiKey.set(key);
    else apiKey.forget();
    dialog.returnValue = "given";
  };
  byId("key-cancel").onclick = () => dialog.close();
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "given");
  });
}

/** Runs `work` again with another key as long as the server answers 401 and a key is given. */
export async function withKey(work) {
  for (;;) {
    try {
      return await work();
    } catch (failure) {
      if (failure.status !== 401 || !(await askForKey(failure.message))) throw failure;
    }
  }
}
