// The nodes that report to this catalog, and how full their tiers are.

import { find } from "./api.js";
import { h, problem, put, skeleton, state, table } from "./dom.js";
import { show } from "./format.js";
import { meter } from "./meter.js";

export async function nodes(page) {
  page.title("Nodes");
  const list = h("div", null, skeleton(6, 26));
  put(page.place, h("div", { class: "tools" }, h("h1", null, "Nodes")), list);
  try {
    const found = await find("/nodes", null, page.signal);
    const items = found?.items ?? [];
    put(list, items.length ? table("Nodes", columns(items), items, "rows") : noNodes());
  } catch (error) {
    if (error.name !== "AbortError") put(list, problem(error, page.again));
  }
}

/** What every place says that would show nodes. */
export function noNodes() {
  return state("No node has reported yet", "A node reports what it holds as soon as it mounts tables of this catalog:",
    h("p", { class: "dim mono" }, "terrace mount catalog: /data --catalog URL"));
}

function columns(items) {
  const tiers = [...new Set(items.flatMap((node) => node.tiers.map((tier) => tier.name)))];
  return [
    { head: "Node", cls: "name", cell: (node) => [node.node, node.mounts?.length > 0
      && h("div", { class: "dim small mono" }, node.mounts.join(", "))] },
    { head: "State", cls: "flag", cell: (node) => node.fresh === false
      ? h("span", { class: "badge warn" }, "silent") : h("span", { class: "badge good" }, "reporting") },
    ...tiers.map((name) => ({
      head: `${name} tier`,
      cell: (node) => {
        const tier = node.tiers.find((other) => other.name === name);
        return tier && tier.used_bytes !== null
          ? meter(tier.used_bytes, tier.limit_bytes ?? 0, `${name} tier of ${node.node}`) : "–";
      },
    })),
    { head: "Datasets", cls: "num", cell: (node) => show.count(node.datasets) },
    { head: "Program", cls: "num dim", cell: (node) => node.version },
    { head: "Seen", cls: "num", cell: (node) => show.ago(node.seen_ms) },
  ];
}
