// Where a version is: how much of it each node holds in which tier, and who holds on to it.

import { dataset, find } from "./api.js";
import { card, h, problem, put, skeleton, table } from "./dom.js";
import { show } from "./format.js";
import { meter } from "./meter.js";
import { noNodes } from "./page_nodes.js";

const SHOWN = 4;

async function load(page, name) {
  const found = await find(dataset(name, "heat"), null, page.signal);
  return { isServed: found !== null, items: found?.items ?? [], holds: found?.holds ?? [] };
}

/** The part of the page with every node. */
export async function heat(page, { name, version }, place) {
  put(place, skeleton(6, 26));
  try {
    const found = await load(page, name);
    put(place, found.items.length ? table(`Nodes that hold ${name}`, columns(version), sorted(found.items, version), "rows") : noNodes(),
      h("h2", null, "Who holds it"), holders(found.holds));
  } catch (error) {
    if (error.name !== "AbortError") put(place, problem(error, page.again));
  }
}

/** The same in short, for the overview. */
export function heatCard(page, table) {
  const place = h("div", null, skeleton(3, 20));
  const made = card("Where it is", null, place);
  load(page, table.name).then((found) => {
    const of = sorted(found.items, table.version).filter((item) => item.version === table.version.version);
    const line = (item) => h("tr", null, h("th", { scope: "row" }, item.node, item.fresh === false && h("span", { class: "badge warn" }, "silent")),
      h("td", null, meter(item.tiers.hot, item.total_bytes, `Part of it in the hot tier of ${item.node}`)));
    const more = of.length - SHOWN;
    put(place, of.length ? h("table", { class: "rows tight" }, h("caption", { class: "sr" }, "Part of this version in each node's hot tier"),
      h("tbody", null, of.slice(0, SHOWN).map(line))) : h("p", { class: "dim" }, found.isServed ? "No node has any of this version yet." : "No node has reported yet."),
    more > 0 && h("a", { href: page.link(page.path, { tab: "nodes" }) }, `and ${more} more`),
    found.holds.length > 0 && [h("h3", null, "Held by"), holders(found.holds)]);
  }).catch((error) => {
    if (error.name !== "AbortError") put(place, problem(error));
  });
  return made;
}

/** The shown version first, then the fullest nodes. */
function sorted(items, version) {
  const rank = (item) => [item.version === version?.version ? 0 : 1, -item.version, -item.tiers.hot];
  return [...items].sort((one, two) => {
    const [a, b] = [rank(one), rank(two)];
    const at = a.findIndex((value, index) => value !== b[index]);
    return at < 0 ? String(one.node).localeCompare(two.node) : a[at] - b[at];
  });
}

function columns(version) {
  return [
    { head: "Node", cls: "name", cell: (item) => [item.node, item.fresh === false && h("span", { class: "badge warn" }, "silent")] },
    { head: "Version", cell: (item) => item.version === version?.version ? h("b", null, `v${item.version}`) : `v${item.version}` },
    { head: "Hot", cell: (item) => meter(item.tiers.hot, item.total_bytes, `Hot on ${item.node}`) },
    { head: "Warm", cell: (item) => item.tiers.warm === null ? "–" : meter(item.tiers.warm, item.total_bytes, `Warm, for ${item.node}`) },
    { head: "Seen", cls: "num", cell: (item) => show.ago(item.seen_ms) },
  ];
}

function holders(holds) {
  if (holds.length === 0) return h("p", { class: "dim" }, "Nobody: no mount, tag or model keeps a version of it.");
  return table("Who holds versions", [
    { head: "Holder", cls: "mono", cell: (hold) => hold.holder },
    { head: "As", cell: (hold) => hold.kind },
    { head: "Version", cell: (hold) => hold.version ? `v${hold.version}` : "–" },
    { head: "Since", cls: "num", cell: (hold) => show.ago(hold.since_ms) },
  ], holds, "rows tight");
}
