// Datasets and models: a search that lives in the address, one page of the list at a time.
//
// The catalog may have a hundred thousand: a page is asked for by the name it begins behind, and only
// the rows of one page are ever in the document.

import { dataset, find, get } from "./api.js";
import { code, h, problem, put, skeleton, speak, state } from "./dom.js";
import { plural, show } from "./format.js";
import { downInto, listKeys, rowOf } from "./keys.js";

const PAGE = 50;
const NAMESPACES = 1000;
/** Typing pauses this long before the catalog is asked. */
const PAUSE_MS = 150;

const words = {
  dataset: { title: "Datasets", one: "dataset", search: "Search datasets" },
  model: { title: "Models", one: "model", search: "Search models" },
};

export function datasets(page, kind) {
  const word = words[kind];
  page.title(word.title);
  const search = h("input", {
    id: "search", type: "search", placeholder: "Name or description", "aria-label": word.search,
    autocomplete: "off", spellcheck: "false", value: page.query.get("q") ?? "",
  });
  const namespace = h("select", { id: "namespace", "aria-label": "Namespace" }, h("option", { value: "" }, "All namespaces"));
  const said = h("span", { class: "dim", id: "found" });
  const list = h("div", { class: "list" }, skeleton(12, 26));
  const changed = h("div", { class: "notice", hidden: true },
    "The list has changed. ", h("button", { type: "button", class: "plain", onclick: page.again }, "Show"));
  put(page.place, h("div", { class: "tools" }, h("h1", null, word.title), said, h("span", { class: "grow" }), namespace,
    h("span", { class: "search" }, search, h("kbd", { "aria-hidden": "true" }, "/"))), changed, list);

  // From the first key until its rows are drawn the list is busy: it shows what was asked for before.
  let asked = null;
  let typing = null;
  const load = async () => {
    asked?.abort();
    const own = new AbortController();
    asked = own;
    list.setAttribute("aria-busy", "true");
    try {
      const query = { q: page.query.get("q"), ns: page.query.get("ns"), after: page.query.get("after"), kind, limit: PAGE };
      const found = await get("/datasets", query, AbortSignal.any([own.signal, page.signal]));
      draw(found);
    } catch (error) {
      if (error.name !== "AbortError") put(list, problem(error, load));
    }
    // What was asked since then is what the list waits for.
    if (asked === own && typing === null) list.removeAttribute("aria-busy");
  };

  const draw = (found) => {
    const after = page.query.get("after");
    const isSearch = page.query.get("q") || page.query.get("ns");
    const more = found.next ? "or more" : "";
    const text = after ? `${plural(found.items.length, word.one)} on this page` : `${plural(found.items.length, word.one)} ${more}`;
    said.textContent = found.items.length ? text : "";
    speak(text);
    // Rows come anew also while somebody goes through them.
    const held = list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    if (found.items.length === 0) put(list, isSearch || after ? nothingFound(page) : nothingYet(kind));
    else put(list, rows(page, found.items, kind), pager(page, found, after));
    if (held !== null) (rowOf(list, held) ?? search).focus({ preventScroll: true });
  };

  search.addEventListener("input", () => {
    clearTimeout(typing);
    list.setAttribute("aria-busy", "true");
    typing = setTimeout(() => {
      typing = null;
      page.go({ q: search.value.trim(), after: null }, { replace: true });
      load();
    }, PAUSE_MS);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) {
      event.preventDefault();
      search.value = "";
      search.dispatchEvent(new Event("input"));
    }
    downInto(event, list);
  });
  listKeys(list, search);
  namespace.addEventListener("change", () => page.go({ ns: namespace.value, after: null }));
  page.onEvent((item) => {
    // The first page changes under the reader only while it is not being used.
    const isUsed = list.contains(document.activeElement) || page.query.get("after");
    if (!/^(dataset_|version_committed|version_removed)/.test(item.kind)) return;
    if (isUsed) changed.hidden = false;
    else later(load);
  });
  page.signal.addEventListener("abort", () => clearTimeout(typing));
  fillNamespaces(page, namespace);
  load();
}

/** Many events at once make one request. */
let waiting = null;
function later(load) {
  clearTimeout(waiting);
  waiting = setTimeout(load, 400);
}

async function fillNamespaces(page, select) {
  const wanted = page.query.get("ns") ?? "";
  try {
    const found = await get("/namespaces", { limit: NAMESPACES }, page.signal);
    const names = found.items.includes(wanted) || !wanted ? found.items : [wanted, ...found.items];
    names.forEach((name) => select.append(h("option", { value: name }, name)));
    select.value = wanted;
  } catch {
    // The list itself says what is wrong.
  }
}

function rows(page, items, kind) {
  const head = ["Name", "Description", "Version", "Files", "Size", "Updated"];
  const numeric = (at) => at >= 2 ? "num" : null;
  const body = items.map((item) => h("tr", { class: item.removing_not_before_ms ? "going" : null },
    h("td", { class: "name" }, h("a", { href: page.link(`/t/${item.name}`), "data-row": true }, name(item.name)),
      item.removing_not_before_ms && h("span", { class: "badge warn" }, "being removed")),
    h("td", { class: "words" }, h("span", { title: item.description }, item.description || "")),
    h("td", { class: "num" }, item.latest ? `v${item.latest}` : h("span", { class: "badge" }, "no version yet")),
    h("td", { class: "num" }, show.count(item.files)),
    h("td", { class: "num" }, show.bytes(item.bytes)),
    h("td", { class: "num" }, show.ago(item.committed_ms))));
  return h("table", { class: "rows" }, h("caption", { class: "sr" }, words[kind].title),
    h("thead", null, h("tr", null, head.map((text, at) => h("th", { scope: "col", class: numeric(at) }, text)))),
    h("tbody", null, body));
}

/** The namespace is quieter than the table. */
function name(full) {
  const at = full.indexOf(".");
  return [h("span", { class: "dim" }, full.slice(0, at + 1)), full.slice(at + 1)];
}

function pager(page, found, after) {
  if (!found.next && !after) return null;
  const to = (next) => page.link(page.path, { ...Object.fromEntries(page.query), after: next });
  return h("nav", { class: "pager", "aria-label": "Pages" },
    after && h("a", { href: to(null), class: "plain" }, "First page"),
    found.next && h("a", { href: to(found.next), class: "plain", rel: "next", id: "next" }, `Next ${PAGE}`));
}

function nothingFound(page) {
  const q = page.query.get("q");
  const found = h("p", null);
  if (/^[\w-]+\.[\w-]+$/.test(q ?? "")) unpublished(page, q, found);
  return state(q ? `Nothing matches “${q}”` : "Nothing here", "The search looks into names and descriptions.",
    h("a", { href: page.link(page.path), class: "plain" }, "Show everything"), found);
}

/** A table that discovery has found and not published is no dataset yet; who asks for it is told why. */
async function unpublished(page, name, place) {
  const why = await find(dataset(name, "sync"), null, page.signal).catch(() => null);
  if (why) put(place, h("a", { href: page.link(`/t/${name}`) }, name), " has been found and is not published yet: see why.");
}

function nothingYet(kind) {
  if (kind === "model") {
    return state("No models yet", "A model is saved once and then never changes:",
      code("terrace dataset save ./checkpoint team/churn"));
  }
  return state("No datasets yet", "Watch the place that your sync system writes to; complete tables appear here by themselves:",
    code("terrace sync add s3://bucket/warehouse --namespace ads"),
    h("p", { class: "dim" }, "Your token may also be limited to other namespaces: see terrace catalog token list."));
}
