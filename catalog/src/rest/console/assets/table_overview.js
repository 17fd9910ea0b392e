// The first part of a table's page: size over versions, freshness and why, how to use it, who has it.

import { chart } from "./chart.js";
import { card, code, h, put, state } from "./dom.js";
import { bytes, count, moment, plural, show, span } from "./format.js";
import { howTo } from "./howto.js";
import { heatCard } from "./table_heat.js";

const REASONS_SHOWN = 6;

export function overview(page, table, place) {
  if (!table.version) {
    put(place, h("div", { class: "columns" }, h("div", null, unpublished(table)), h("div", null, table.about.descriptor && descriptor(table))));
    return;
  }
  put(place, h("div", { class: "columns" },
    h("div", null, sizes(page, table), h("div", { id: "freshness" }, freshness(table))),
    h("div", null, howTo(table), heatCard(page, table), descriptor(table))));
}

function sizes(page, table) {
  // Oldest first, as time runs.
  const points = [...table.recent].reverse();
  const measures = { Size: (version) => version.bytes, Rows: (version) => version.rows, Files: (version) => version.files };
  const usable = Object.entries(measures).filter(([, of]) => points.every((version) => of(version) !== null && of(version) !== undefined));
  const place = h("div");
  const choose = (name) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === name));
    const of = measures[name];
    put(place, chart({
      label: `${name} over versions of ${table.name}`,
      format: name === "Size" ? bytes : count,
      selected: table.version.version,
      points: points.map((version) => ({
        at: version.version, value: of(version), name: `v${version.version}`, note: moment(version.committed_ms),
        href: page.link(`/t/${table.name}@v${version.version}`),
      })),
    }));
  };
  const buttons = usable.map(([name]) => h("button", { type: "button", class: "segment", onclick: () => choose(name) }, name));
  choose("Size");
  return card("Over versions", h("div", { class: "segments", role: "group", "aria-label": "Measure" }, buttons), place);
}

/** How the newest version came, and what keeps the next one back. */
export function freshness({ version, why, about }) {
  const published = h("p", null, "Latest is ", h("b", null, `v${about.latest}`), ", committed ", show.ago(about.committed_ms),
    version.cause && version.version === about.latest && h("span", { class: "dim" }, ` · ${version.cause}`));
  if (!why) {
    return card("Freshness", null, published, h("p", { class: "dim" }, "No sync root has this table: new versions come by calls only."));
  }
  return card("Freshness", looked(why), published, reasons(why));
}

function looked(why) {
  return h("span", { class: "dim small" }, why.looked_seconds_ago === null || why.looked_seconds_ago === undefined
    ? "not looked at yet" : `looked ${span(why.looked_seconds_ago)} ago`);
}

/** What keeps partitions back, in discovery's own words. */
function reasons(why) {
  const shown = why.partitions.slice(0, REASONS_SHOWN);
  const partition = (found) => h("li", null,
    h("span", { class: found.state === "refused" ? "badge bad" : "badge warn" }, found.state), " ",
    h("span", { class: "mono" }, found.partition || "the whole table"), h("br"),
    `${found.reason}, since ${span(found.since_seconds)}`);
  const left = why.syncing + why.refused - shown.length;
  return [
    why.trouble && h("p", { class: "notice warn" }, `${why.trouble.reason}, since ${span(why.trouble.since_seconds)}`),
    why.warnings.map((warning) => h("p", { class: "notice" }, warning)),
    shown.length === 0 && !why.trouble
      ? h("p", { class: "dim" }, `${plural(why.complete, "partition")} complete, nothing is waiting.`)
      : [h("p", { class: "dim" }, `${count(why.complete)} complete, ${count(why.syncing)} syncing, ${count(why.refused)} refused`),
        h("ul", { class: "reasons" }, shown.map(partition)),
        left > 0 && h("p", { class: "dim" }, `and ${plural(left, "more partition")}: terrace sync why ${why.dataset}`)],
  ];
}

function unpublished({ name, why }) {
  if (!why) {
    return state("No version yet", "No sync root has this table. Watch the place it is written to, or publish a batch by a call:",
      code("terrace sync add s3://bucket/warehouse --namespace ads"));
  }
  return card("Why there is no version yet", looked(why), reasons(why), code(`terrace sync why ${name}`));
}

/** What a person said about the table. */
function descriptor({ about }) {
  return h("details", { class: "card" }, h("summary", null, "Descriptor"),
    h("pre", { tabindex: 0 }, JSON.stringify(about.descriptor, null, 2)));
}
