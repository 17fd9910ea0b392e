// The partitions of a version: one page at a time, from a place on that is in the address.

import { dataset, get } from "./api.js";
import { h, problem, put, skeleton, state, table } from "./dom.js";
import { show } from "./format.js";

const PAGE = 100;

export async function partitions(page, { name, version, why }, place) {
  if (!version) return void put(place, state("No version yet", "There are no partitions before the first version."));
  const after = page.query.get("after");
  const from = h("input", { id: "from", type: "search", placeholder: "Go to, e.g. dt=2026-11", "aria-label": "Go to partition",
    spellcheck: "false", autocomplete: "off" });
  const list = h("div", null, skeleton(10, 24));
  const jump = h("form", { class: "tools" }, from, h("button", { type: "submit", class: "plain" }, "Go"));
  jump.addEventListener("submit", (event) => {
    event.preventDefault();
    page.go({ after: before(from.value.trim()) });
  });
  put(place, jump, list);
  try {
    const found = await get(dataset(name, "versions", `v${version.version}`, "partitions"), { after, limit: PAGE }, page.signal);
    if (found.items.length === 0) {
      put(list, state("No partitions here", after ? "There are none behind this place." : "The version has no files."),
        after && h("a", { class: "plain", href: page.link(page.path, { tab: "partitions" }) }, "First page"));
      return;
    }
    put(list, table(`Partitions of ${name}`, columns(why), found.items, "rows"), pager(page, found.next, after));
  } catch (error) {
    if (error.name !== "AbortError") put(list, problem(error, page.again));
  }
}

/** A text just before everything that begins with `wanted`, because pages begin behind a name. */
function before(wanted) {
  if (!wanted) return null;
  const last = wanted.charCodeAt(wanted.length - 1);
  return `${wanted.slice(0, -1)}${String.fromCharCode(last - 1)}~`;
}

function columns(why) {
  const late = new Map((why?.partitions ?? []).map((partition) => [partition.partition, partition]));
  const waiting = (path) => {
    const found = late.get(path);
    return found && h("span", { class: found.state === "refused" ? "badge bad" : "badge warn", title: found.reason }, found.state);
  };
  return [
    { head: "Partition", cls: "mono name", cell: (item) => [item.path || "(whole table)", waiting(item.path)] },
    { head: "Files", cls: "num", cell: (item) => show.count(item.files) },
    { head: "Rows", cls: "num", cell: (item) => show.count(item.rows) },
    { head: "Size", cls: "num", cell: (item) => show.bytes(item.bytes) },
  ];
}

function pager(page, next, after) {
  if (!next && !after) return null;
  return h("nav", { class: "pager", "aria-label": "Pages" },
    after && h("a", { class: "plain", href: page.link(page.path, { tab: "partitions" }) }, "First page"),
    next && h("a", { class: "plain", rel: "next", href: page.link(page.path, { tab: "partitions", after: next }) }, `Next ${PAGE}`));
}
