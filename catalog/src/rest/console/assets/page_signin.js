// Signing in: a token, tried before it is kept.

import { session, tryToken } from "./api.js";
import { code, h, put } from "./dom.js";

/** Draws the form; `done()` follows when a token was accepted. */
export function signIn(place, said, done) {
  document.title = "Sign in · Terrace";
  const input = h("input", {
    id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    placeholder: "trc_…", "aria-describedby": "token-said",
  });
  const why = h("p", { id: "token-said", class: "bad-text", role: "alert" }, said ?? "");
  const button = h("button", { type: "submit", class: "main" }, "Sign in");
  const form = h("form", { class: "card signin" },
    h("h1", null, "Terrace"),
    h("p", { class: "dim" }, "Datasets by name, version and freshness."),
    h("label", { for: "token" }, "Token"), input, why, button,
    h("details", null, h("summary", null, "Where do I get a token?"),
      h("p", null, "terrace up keeps one for this machine in its data directory:"), code("cat DATA/token"),
      h("p", null, "An administrator makes one for you:"),
      code("terrace catalog token create NAME --grant 'read:*'")),
    h("p", { class: "dim small" }, "It stays in this tab and is forgotten when the tab closes."));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const token = input.value.trim();
    button.disabled = true;
    why.textContent = "";
    try {
      await tryToken(token);
      session.enter(token);
      done();
    } catch (error) {
      // A token that may do something, but not list, is told so here and not by every page.
      why.textContent = error.status === 403 ? `This token may not list anything: ${error.message}` : message(error);
      input.select();
    } finally {
      button.disabled = false;
    }
  });
  put(place, form);
  input.focus();
}

function message(error) {
  return error.status === 401 ? `The token was not accepted: ${error.message}` : error.message;
}
