// Warming a version up: a button, and the progress of its jobs as the nodes report it.

import { find, get, post, remove } from "./api.js";
import { h, put, speak } from "./dom.js";
import { bytes, plural } from "./format.js";
import { meter } from "./meter.js";

/** A running job is asked for this often. */
const LOOK_MS = 1000;
const OVER = ["done", "failed", "cancelled"];

/** The button; progress is drawn into `place`. Jobs that run already are shown at once. */
export function warmUp(page, { name, version }, place) {
  const button = h("button", { type: "button", class: "main", id: "warm" }, "Warm up");
  const pin = h("input", { type: "checkbox", id: "warm-pin" });
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const job = await post("/warm", { selector: version.selector, nodes: null, tier: "hot", pin: pin.checked }, page.signal);
      speak(`Warming ${version.selector} up`);
      follow(page, job, place, button);
    } catch (error) {
      button.disabled = false;
      if (error.name === "AbortError") return;
      put(place, h("p", { class: "notice warn", role: "alert" }, error.isUnserved
        ? "No node has reported yet, so nothing can be warmed up from here. On a node: "
        : `${error.message} `, error.isUnserved ? h("code", null, `terrace warm ${version.selector}`) : error.hint));
    }
  });
  resume(page, name, version, place, button);
  return h("span", { class: "warm" }, h("label", { class: "check", title: "Pinned files are not evicted" }, pin, "pin"), button);
}

async function resume(page, name, version, place, button) {
  try {
    const found = await find("/warm", { dataset: name }, page.signal);
    const running = (found?.items ?? []).find((job) => job.version === version.version && !OVER.includes(job.state));
    if (running) follow(page, running, place, button);
  } catch {
    // The button says what is wrong when somebody presses it.
  }
}

async function follow(page, first, place, button) {
  button.disabled = true;
  let job = first;
  for (;;) {
    // Drawn anew every second: what is open stays open, and the focus where it is.
    const isOpen = place.querySelector("details")?.open ?? job.nodes.length < 6;
    const isFocused = document.activeElement?.id === "warm-stop";
    put(place, progress(page, job, isOpen));
    if (isFocused) (document.getElementById("warm-stop") ?? button).focus();
    if (OVER.includes(job.state)) break;
    await new Promise((done) => { setTimeout(done, LOOK_MS); });
    if (page.signal.aborted) return;
    try {
      job = await get(`/warm/${encodeURIComponent(job.id)}`, null, page.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      put(place, h("p", { class: "notice warn" }, `The progress is not known: ${error.message}`));
      break;
    }
  }
  button.disabled = false;
  speak(`Warm-up of ${job.selector}: ${job.state}`);
}

function progress(page, job, isOpen) {
  const words = { waiting: "Waiting for nodes", running: "Warming up", done: "Warm", failed: "Failed", cancelled: "Cancelled" };
  const node = (item) => h("tr", null, h("th", { scope: "row" }, item.node), h("td", null, item.state),
    h("td", null, meter(item.done_bytes, item.total_bytes, `Progress of ${item.node}`)),
    h("td", { class: "bad-text" }, item.error ?? ""));
  // What it has brought stays where it is; the next look shows that the job is over.
  const stop = () => remove(`/warm/${encodeURIComponent(job.id)}`, null, page.signal).catch((error) => speak(error.message));
  return h("section", { class: `card job ${job.state}`, "aria-label": "Warm-up" },
    h("div", { class: "card-head" }, h("h2", null, `${words[job.state] ?? job.state}: ${job.selector}`),
      h("span", { class: "grow" }), !OVER.includes(job.state) && h("button", { type: "button", class: "quiet", id: "warm-stop", onclick: stop }, "Cancel"),
      h("span", { class: "dim", id: "warm-state" }, `${job.state}, ${percent(job)}% · ${bytes(job.done_bytes)} of ${bytes(job.total_bytes)}`)),
    meter(job.done_bytes, job.total_bytes, "Progress of the warm-up", "wide"),
    job.nodes.length === 0
      ? h("p", { class: "dim" }, job.state === "waiting" ? "No node has taken it yet. Nodes that mount this catalog take jobs within seconds." : "")
      : h("details", { open: isOpen }, h("summary", null, plural(job.nodes.length, "node")),
        h("table", { class: "rows tight" }, h("caption", { class: "sr" }, "Nodes of the warm-up"), h("tbody", null, job.nodes.map(node)))));
}

/** The catalog's own number, which is 100 only when all of it is there. */
function percent(job) {
  return typeof job.percent === "number" ? Math.floor(job.percent) : 0;
}
