// The model picker.

import { getJson } from "./api.js";
import { withKey } from "./api_key_dialog.js";
import { element } from "./elements.js";

/** The server's models in a select element. */
export class Models {
  constructor(select) {
    this._select = select;
  }

  /** The name of the chosen model; "" while none is known. */
  get selected() {
    return this._select.value;
  }

  /** Calls `listener` when another model is chosen. */
  onChange(listener) {
    this._select.addEventListener("change", listener);
  }

  /** Fetches the list; throws ApiFailure. */
  async load() {
    const { data } = await withKey(() => getJson("v1/models"));
    const named = data.filter((model) => !isOnlyPath(model, data));
    this._select.replaceChildren(...named.map(({ id }) => element("option", { value: id }, id)));
    this._select.disabled = data.length === 0;
    this._select.title = this.selected;
  }
}

/** Whether a model goes by its path here, and by a name of its own as well. */
function isOnlyPath({ id, root }, models) {
  return id === root && models.some((other) => other.root === root && other.id !== id);
}
