// The catalog's REST interface, as the signed-in person may use it.
//
// The token lives in sessionStorage: this tab only, gone when it closes. It is sent as a header and
// never in an address.

const KEY = "terrace.token";
const BASE = "/api/v1";

/** What a request that did not succeed says. `status` is 0 when nothing answered. */
export class ApiError extends Error {
  constructor(status, code, message, hint) {
    super(message);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }

  /** Whether this catalog has no such route: a part of it that is not running. */
  get isUnserved() {
    return this.status === 404 && this.message === "there is no such route";
  }
}

export const session = {
  token: () => sessionStorage.getItem(KEY),
  enter: (token) => sessionStorage.setItem(KEY, token),
  leave: () => sessionStorage.removeItem(KEY),
};

let refused = () => {};

/** Calls back when the token is not, or no longer, good for anything. */
export function onRefused(callback) {
  refused = callback;
}

function headers(token, more) {
  return { Authorization: `Bearer ${token}`, ...more };
}

/** Any answer that is not a success, as an ApiError. */
async function failure(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // A proxy in between answers in its own way.
  }
  const message = error.message ?? `${response.status} ${response.statusText}`;
  return new ApiError(response.status, error.code ?? "", message, error.hint ?? "");
}

async function request(method, path, { query, body, signal, token } = {}) {
  const used = token ?? session.token();
  const pairs = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = pairs.length ? `?${new URLSearchParams(pairs)}` : "";
  const more = body === undefined ? {} : { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(BASE + path + search, {
      method, signal, headers: headers(used, more), cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "no answer from the catalog; it may be restarting",
      "reload in a moment, or look at the catalog's log");
  }
  if (response.ok) return response.json();
  const error = await failure(response);
  // A token given for a try is answered to who gave it.
  if (error.status === 401 && token === undefined) refused(error);
  throw error;
}

export const get = (path, query, signal) => request("GET", path, { query, signal });
export const post = (path, body, signal) => request("POST", path, { body, signal });
export const remove = (path, query, signal) => request("DELETE", path, { query, signal });

/** The same, but null where there is nothing: a route or a thing that is not there. */
export async function find(path, query, signal) {
  try {
    return await get(path, query, signal);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** Errors unless the token is good for something. */
export function tryToken(token) {
  return request("GET", "/datasets", { query: { limit: 1 }, token });
}

/** The path of a dataset, and of what is below it. */
export function dataset(name, ...below) {
  return ["/datasets", ...[name, ...below].map(encodeURIComponent)].join("/");
}

/**
 * Follows events until `signal`: `event(item)` for each, `place(id)` where the stream is, `state(is live)`
 * when it comes or goes, and `lost()` when events were missed and everything has to be asked again.
 * EventSource cannot send a header, so the stream is read here. `after` is the last place of an earlier call.
 */
export async function follow(signal, after, { event, place, state, lost }) {
  let pause = 500;
  while (!signal.aborted) {
    try {
      const search = after === null ? "" : `?after=${after}`;
      const response = await fetch(`${BASE}/events${search}`, { signal, headers: headers(session.token()), cache: "no-store" });
      if (!response.ok) throw await failure(response);
      state(true);
      pause = 500;
      for await (const item of messages(response.body)) {
        if (signal.aborted) return;
        if (item.id) place(after = item.id);
        if (item.data) event(JSON.parse(item.data));
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401) return refused(error);
      if (error.status === 410) {
        after = null;
        lost();
      }
      pause = Math.min(pause * 2, 15000);
    }
    state(false);
    await new Promise((done) => { setTimeout(done, pause); });
  }
}

/**
 * The messages of a stream: blocks of lines, each with the place in the stream behind `id:`, and all but the
 * first with JSON behind `data:`. The first says where the stream begins.
 */
async function* messages(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/);
      const field = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trim());
      yield { id: field("id").at(-1), data: field("data").join("\n") };
    }
  }
}
