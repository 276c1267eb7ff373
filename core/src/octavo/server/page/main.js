// The page: the chat, the engine's view, and what binds them.

import { Chat } from "./chat.js";
import { byId, setText } from "./elements.js";
import { EngineFeed } from "./engine_feed.js";
import { EngineView } from "./engine_view.js";
import { Models } from "./models.js";
import { Parameters } from "./parameters.js";
import { Tabs } from "./tabs.js";

const models = new Models(byId("model"));
const parameters = new Parameters(byId("parameters"));
const chat = new Chat({ models, parameters });
const view = new EngineView(byId("engine"));
const feed = new EngineFeed({ onState: showState, onFailure: ({ message }) => view.fail(message) });
const tabs = new Tabs(watch);

function showState(state) {
  view.show(state);
  const { num_running: running, num_waiting: waiting } = state.stats;
  setText(byId("tab-badge"), running + waiting ? String(running + waiting) : "");
}

/** Watches the engine only while its view can be seen. */
function watch() {
  const isSeen = tabs.isEngineShown && document.visibilityState === "visible";
  feed.watch(isSeen && models.selected ? models.selected : null);
}

function toggleParameters() {
  const panel = byId("parameters");
  panel.hidden = !panel.hidden;
  byId("parameters-toggle").setAttribute("aria-expanded", String(!panel.hidden));
  if (panel.hidden) return;
  tabs.show("chat");
  panel.querySelector("textarea").focus();
}

async function start() {
  try {
    await models.load();
    watch();
  } catch (failure) {
    view.fail(failure.message);
    chat.fail(failure.message, start);
  }
}

byId("parameters-toggle").addEventListener("click", toggleParameters);
byId("new-conversation").addEventListener("click", () => {
  tabs.show("chat");
  chat.clear();
});
models.onChange(() => {
  view.clear();
  watch();
});
document.addEventListener("visibilitychange", watch);
start();
