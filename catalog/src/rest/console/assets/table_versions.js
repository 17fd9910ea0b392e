// The versions of a table, the newest first, and what the newest of two changed.

import { dataset, get } from "./api.js";
import { h, problem, put, skeleton, state, table } from "./dom.js";
import { bytes, plural, show } from "./format.js";

const PAGE = 50;
const CHANGES = 200;

export async function versions(page, { name, about, version }, place) {
  if (!version) return void put(place, state("No version yet", "Versions appear here as they are committed."));
  put(place, skeleton(8, 26));
  try {
    const before = page.query.get("before");
    const found = await get(dataset(name, "versions"), { before, limit: PAGE }, page.signal);
    const tags = Object.entries(about.tags ?? {});
    const changes = h("div", { id: "changes", "aria-live": "polite" });
    put(place, table(`Versions of ${name}`, columns(page, name, tags, version, changes), found.items, "rows"), changes,
      (found.next || before) && h("nav", { class: "pager", "aria-label": "Pages" },
        before && h("a", { class: "plain", href: page.link(page.path, { tab: "versions" }) }, "Newest"),
        found.next && h("a", { class: "plain", rel: "next", href: page.link(page.path, { tab: "versions", before: found.next }) }, "Older")));
  } catch (error) {
    if (error.name !== "AbortError") put(place, problem(error, page.again));
  }
}

function columns(page, name, tags, shown, changes) {
  const tagged = (item) => tags.filter(([, of]) => of === item.version)
    .map(([tag]) => h("a", { class: "badge", href: page.link(`/t/${name}@${tag}`) }, tag));
  return [
    { head: "Version", cls: "name", cell: (item) => [
      h("a", { href: page.link(`/t/${name}@v${item.version}`), "aria-current": item.version === shown?.version ? "true" : null }, `v${item.version}`),
      tagged(item), item.state !== "committed" && h("span", { class: "badge warn", title: item.reason }, item.state)] },
    { head: "Committed", cell: (item) => show.ago(item.committed_ms) },
    { head: "Cause", cls: "words", cell: (item) => h("span", { title: item.cause }, item.cause) },
    { head: "Rows", cls: "num", cell: (item) => show.count(item.rows) },
    { head: "Files", cls: "num", cell: (item) => show.count(item.files) },
    { head: "Size", cls: "num", cell: (item) => show.bytes(item.bytes) },
    { head: "", cls: "num", cell: (item) => item.version > 1 && h("button", { type: "button", class: "quiet",
      "aria-label": `What v${item.version} changed`, onclick: () => compare(page, name, item.version, changes) }, "Changes") },
  ];
}

/** The files in which a version differs from the one before it. */
async function compare(page, name, number, place) {
  put(place, skeleton(4, 22));
  try {
    const found = await get(dataset(name, "diff"), { from: `v${number - 1}`, to: `v${number}`, limit: CHANGES }, page.signal);
    const title = h("h2", { tabindex: -1 }, `v${number - 1} → v${number}`);
    const rows = found.items;
    put(place, title, rows.length === 0 ? h("p", { class: "dim" }, "The files are the same.")
      : table(`Files that v${number} changed`, [
        { head: "Change", cls: "flag", cell: (item) => h("span", { class: `badge ${item.change === "removed" ? "bad" : item.change === "added" ? "good" : "warn"}` }, item.change) },
        { head: "File", cls: "mono", cell: (item) => item.path },
        { head: "Size", cls: "num", cell: (item) => sizes(item) },
      ], rows, "rows"),
    found.next && h("p", { class: "dim" }, `The first ${plural(rows.length, "file")}; all of them: terrace dataset diff ${name} v${number - 1} v${number}`));
    title.focus();
  } catch (error) {
    if (error.name !== "AbortError") put(place, problem(error));
  }
}

function sizes(item) {
  if (item.change === "changed") return `${bytes(item.from_size)} → ${bytes(item.to_size)}`;
  return bytes(item.to_size ?? item.from_size);
}
