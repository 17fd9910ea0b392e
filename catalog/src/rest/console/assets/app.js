// The shell: who is signed in, which page the address means, live events, keys.
//
//   #/?q=clicks&ns=ads      datasets        #/models     #/roots     #/nodes
//   #/t/ads.clicks@v12?tab=schema           one table; without @ its latest version
//
// A page is a function (page) => void; it draws into page.place, and page.signal ends when another page
// is shown, and with it every request and subscription of the page.

import { follow, onRefused, session } from "./api.js";
import { h, put, speak, state } from "./dom.js";
import { keepAgesTrue } from "./format.js";
import { datasets } from "./page_datasets.js";
import { nodes } from "./page_nodes.js";
import { roots } from "./page_roots.js";
import { signIn } from "./page_signin.js";
import { tablePage } from "./page_table.js";

const main = document.getElementById("main");
const bar = document.getElementById("bar");
const live = document.getElementById("link");

let current = null;
let stream = null;
/** The last event that was seen. */
let seen = null;
const listeners = new Set();

/** The address as path, what follows the last name in it, and parameters. */
function address() {
  const [path, query] = (location.hash.replace(/^#/, "") || "/").split(/\?(.*)/s);
  return { path, query: new URLSearchParams(query ?? "") };
}

/** An address of this console. Parameters that are empty are left out. */
export function link(path, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return `#${path}${pairs.length ? `?${new URLSearchParams(pairs)}` : ""}`;
}

function find(path) {
  const [, first, rest] = path.match(/^\/([^/]*)\/?(.*)$/) ?? [];
  switch (first) {
    case "": return { name: "datasets", show: (page) => datasets(page, "dataset") };
    case "models": return { name: "models", show: (page) => datasets(page, "model") };
    case "roots": return { name: "roots", show: roots };
    case "nodes": return { name: "nodes", show: nodes };
    case "t": {
      const [, name, version] = safeDecode(rest).match(/^([^@]+)(?:@(.+))?$/) ?? [];
      return name ? { name: "datasets", show: (page) => tablePage(page, name, version ?? null) } : null;
    }
    default: return null;
  }
}

function safeDecode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function route() {
  const { path, query } = address();
  const isFirst = current === null;
  const samePlace = current?.path === path;
  current?.stop.abort();
  const stop = new AbortController();
  const place = h("div", { class: "page" });
  const page = {
    place, query, path, signal: stop.signal,
    title: (text) => { document.title = text ? `${text} · Terrace` : "Terrace"; },
    link,
    // Changes the parameters: as a step of its own, or instead of the present address.
    go: (changes, { replace = false } = {}) => {
      const next = link(path, { ...Object.fromEntries(query), ...changes });
      if (!replace) {
        location.hash = next;
        return;
      }
      history.replaceState(null, "", next);
      for (const [name, value] of Object.entries(changes)) {
        if (value) query.set(name, value);
        else query.delete(name);
      }
    },
    onEvent: (callback) => {
      listeners.add(callback);
      stop.signal.addEventListener("abort", () => listeners.delete(callback));
    },
    again: route,
  };
  const focused = document.activeElement?.id;
  current = { path, stop };
  const found = find(path);
  for (const item of document.querySelectorAll("#nav a")) {
    if (item.dataset.page === found?.name) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
  }
  put(main, place);
  if (found) found.show(page);
  else put(place, state("There is no such page", "The address means nothing here.", h("a", { href: "#/" }, "All datasets")));
  if (!samePlace) {
    window.scrollTo(0, 0);
    // Who reads by ear is told that the page is another one; who clicked keeps a clean page.
    if (!isFirst) main.focus({ preventScroll: true });
  } else if (focused) {
    document.getElementById(focused)?.focus({ preventScroll: true });
  }
}

function begin() {
  bar.hidden = false;
  seen = null;
  listen();
  route();
}

// A browser has six connections to a server, for all its tabs together: a tab that nobody looks at keeps
// none of them, and goes on behind the last event when it is looked at again.
function listen() {
  stream?.abort();
  if (!session.token() || document.visibilityState !== "visible") return;
  stream = new AbortController();
  follow(stream.signal, seen, {
    event: (item) => listeners.forEach((listener) => listener(item)),
    place: (id) => { seen = id; },
    state: (isLive) => {
      live.textContent = isLive ? "live" : "reconnecting";
      live.classList.toggle("on", isLive);
    },
    lost: route,
  });
}

function end(error) {
  session.leave();
  stream?.abort();
  current?.stop.abort();
  current = null;
  bar.hidden = true;
  const said = error ? error.message : null;
  signIn(main, said, begin);
}

const pages = { d: "#/", m: "#/models", r: "#/roots", n: "#/nodes" };
let isGoing = false;

function keys(event) {
  const typing = event.target.closest("input, textarea, select");
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !session.token()) return;
  if (typing || document.querySelector("dialog[open]")) return;
  const wasGoing = isGoing;
  isGoing = event.key === "g";
  if (wasGoing && pages[event.key]) {
    location.hash = pages[event.key];
  } else if (event.key === "/") {
    event.preventDefault();
    const search = document.getElementById("search");
    if (search) search.focus();
    else location.hash = "#/";
  } else if (event.key === "?") {
    document.getElementById("help").showModal();
  }
}

onRefused(end);
keepAgesTrue();
window.addEventListener("hashchange", () => session.token() && route());
document.addEventListener("keydown", keys);
document.addEventListener("visibilitychange", () => {
  listen();
  // Without an event to go on behind, what happened meanwhile is not known.
  if (document.visibilityState === "visible" && seen === null && listeners.size) route();
});
window.addEventListener("pagehide", () => stream?.abort());
window.addEventListener("pageshow", (event) => event.persisted && listen());
document.getElementById("leave").addEventListener("click", () => {
  end(null);
  speak("Signed out");
});
document.getElementById("keys").addEventListener("click", () => document.getElementById("help").showModal());
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
if (session.token()) begin();
else end(null);
