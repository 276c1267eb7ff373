// The small square that says which colour of the block map a request has.

import { element } from "./elements.js";
import { colourOf } from "./request_colour.js";

/** An element with `show(requestId)`; nothing is shown for "". */
export function swatch(requestId = "") {
  const node = element("span", { className: "swatch", "aria-hidden": "true" });
  node.show = (id) => {
    if (node.octavoId === id) return;
    node.octavoId = id;
    node.hidden = !id;
    if (id) node.style.backgroundColor = colourOf(id);
  };
  node.show(requestId);
  return node;
}
