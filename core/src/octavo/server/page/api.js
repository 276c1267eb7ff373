// Requests to the server: the API key, and failures as readable messages.

const KEY_NAME = "octavo-api-key";

/** What the server, or the way to it, answered instead of what was asked for. */
export class ApiFailure extends Error {
  /** `status` is HTTP's; 0 when there was no answer at all. */
  constructor(message, status = 0, retryAfterS = null) {
    super(message);
    this.name = "ApiFailure";
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

export const apiKey = {
  get: () => sessionStorage.getItem(KEY_NAME) ?? "",
  set: (key) => sessionStorage.setItem(KEY_NAME, key),
  forget: () => sessionStorage.removeItem(KEY_NAME),
};

/**
 * A response with a status of success; throws ApiFailure otherwise, AbortError when `signal` says.
 * Paths are relative, so that the page also works behind a proxy's prefix.
 */
export async function request(path, { body, signal } = {}) {
  const headers = {};
  if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  const response = await answered(fetch(path, options));
  if (!response.ok) throw await failureOf(response);
  return response;
}

/** JSON from the server. */
export async function getJson(path, options) {
  const response = await request(path, options);
  return response.json();
}

async function answered(fetching) {
  try {
    return await fetching;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiFailure("The server does not answer. Is it still running?");
  }
}

async function failureOf(response) {
  const retryAfter = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const text = await response.text().catch(() => "");
  const message = messageIn(text) || text.slice(0, 500) || response.statusText;
  return new ApiFailure(message, response.status, Number.isFinite(retryAfter) ? retryAfter : null);
}

/** The message in an error body of the server; "" where there is none. */
export function messageIn(text) {
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : (error?.message ?? "");
  } catch {
    return "";
  }
}
