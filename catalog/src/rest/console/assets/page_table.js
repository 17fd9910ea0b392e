// One table (or model): which version, how it is, and the parts of the page.
//
// The address names the version, or nothing for the latest; the part is its parameter `tab`, so that
// every view can be sent to somebody and the back button works.

import { dataset, find, get } from "./api.js";
import { h, problem, put, skeleton, speak } from "./dom.js";
import { count, plural, show } from "./format.js";
import { freshness, overview } from "./table_overview.js";
import { partitions } from "./table_partitions.js";
import { columnsOf, sample, schema } from "./table_data.js";
import { heat } from "./table_heat.js";
import { versions } from "./table_versions.js";
import { warmUp } from "./warm.js";

/** Versions that the list beside the title offers; older ones are under Versions. */
const OFFERED = 100;
/** How fresh it is, is asked for this often. */
const LOOK_MS = 5000;

export async function tablePage(page, name, wanted) {
  page.title(wanted ? `${name}@${wanted}` : name);
  put(page.place, h("div", { class: "tools" }, h("h1", null, name)), skeleton(3, 18), skeleton(8, 26));
  const news = watch(page, name, wanted);
  try {
    const table = await load(page, name, wanted);
    draw(page, table);
    keepFresh(page, table);
    news(table);
  } catch (error) {
    if (error.name === "AbortError") return;
    put(page.place, h("div", { class: "tools" }, h("h1", null, name)), problem(error, page.again),
      h("p", null, h("a", { href: "#/" }, "All datasets")));
  }
}

async function load(page, name, wanted) {
  const stays = (error) => {
    if (error.name === "AbortError") throw error;
    return error;
  };
  // Freshness is a part of the page, not a condition of it.
  const [about, recent, found] = await Promise.all([
    get(dataset(name), null, page.signal).catch(stays),
    get(dataset(name, "versions"), { limit: OFFERED }, page.signal).catch(stays),
    find(dataset(name, "sync"), null, page.signal).catch(stays),
  ]);
  const why = found instanceof Error ? null : found;
  // A table that was found and never published is no dataset yet, and has a page all the same.
  if (about.status === 404 && why) return { name, wanted: null, about: {}, recent: [], why, version: null };
  if (about instanceof Error) throw about;
  if (recent instanceof Error) throw recent;
  const isEmpty = !about.latest && !wanted;
  const version = isEmpty ? null : await get(dataset(name, "versions", wanted ?? "latest"), null, page.signal);
  return { name, wanted, about, recent: recent.items, why, version };
}

/** What discovery waits for changes without an event, and is over a moment after the event of its version. */
function keepFresh(page, table) {
  if (!table.why) return;
  const look = setInterval(async () => {
    if (document.visibilityState !== "visible") return;
    // Without an answer what was said before stays; the next one says more.
    const why = await find(dataset(table.name, "sync"), null, page.signal).catch(() => null);
    if (!why || page.signal.aborted) return;
    table.why = why;
    put(document.getElementById("badges"), badges(table));
    const place = document.getElementById("freshness");
    if (place && table.version) put(place, freshness(table));
  }, LOOK_MS);
  page.signal.addEventListener("abort", () => clearInterval(look));
}

const PARTS = [
  { id: "", title: "Overview", draw: overview },
  { id: "sample", title: "Sample", draw: sample },
  { id: "schema", title: "Schema", draw: schema, number: (table) => columnsOf(table.version).length || null },
  { id: "partitions", title: "Partitions", draw: partitions, number: (table) => table.version?.partitions },
  { id: "versions", title: "Versions", draw: versions, number: (table) => table.about.latest },
  { id: "nodes", title: "Nodes", draw: heat },
];

function draw(page, table) {
  const { version } = table;
  const wanted = page.query.get("tab") ?? "";
  const part = PARTS.find((other) => other.id === wanted) ?? PARTS[0];
  const tabs = PARTS.map((other) => {
    const number = other.number?.(table);
    return h("a", { href: page.link(page.path, { tab: other.id }), id: `tab-${other.id || "overview"}`,
      "aria-current": other === part ? "page" : null },
    other.title, number !== undefined && number !== null && h("span", { class: "tab-number" }, count(number)));
  });
  const warm = h("div");
  const body = h("div", { class: "part", id: "part" });
  put(page.place,
    h("nav", { class: "crumbs", "aria-label": "Where" },
      table.about.kind === "model" ? h("a", { href: "#/models" }, "Models") : h("a", { href: "#/" }, "Datasets"), " / ",
      h("a", { href: page.link("/", { ns: table.name.split(".")[0] }) }, table.name.split(".")[0])),
    h("div", { class: "tools title" }, h("h1", null, table.name.slice(table.name.indexOf(".") + 1)), chooser(page, table),
      h("span", { class: "badges", id: "badges" }, badges(table)), h("span", { class: "grow" }), version && warmUp(page, table, warm)),
    table.about.description && h("p", { class: "lead" }, table.about.description),
    version && facts(version), notices(table), warm, version && h("nav", { class: "tabs", "aria-label": "Parts" }, tabs), body);
  (version ? part : PARTS[0]).draw(page, table, body);
}

function chooser(page, table) {
  if (!table.version) return null;
  const tags = Object.entries(table.about.tags ?? {});
  const tagged = (number) => tags.filter(([, of]) => of === number).map(([tag]) => tag);
  const value = table.wanted ?? "";
  const known = table.recent.map((version) => `v${version.version}`);
  const label = (version) => [`v${version.version}`, ...tagged(version.version)].join(" · ");
  const select = h("select", { id: "version", "aria-label": "Version" },
    h("option", { value: "" }, `latest (v${table.about.latest})`),
    tags.length > 0 && h("optgroup", { label: "Tags" }, tags.map(([tag, of]) => h("option", { value: tag }, `${tag} (v${of})`))),
    h("optgroup", { label: "Versions" }, table.recent.map((version) => h("option", { value: `v${version.version}` }, label(version)))),
    value && !known.includes(value) && !tags.some(([tag]) => tag === value) && h("option", { value }, value));
  select.value = value;
  select.addEventListener("change", () => {
    const to = select.value ? `/t/${table.name}@${select.value}` : `/t/${table.name}`;
    location.hash = page.link(to, { tab: page.query.get("tab") });
  });
  return select;
}

function badges({ about, version, why }) {
  const found = [];
  if (about.kind === "model") found.push(h("span", { class: "badge" }, "model"));
  if (version?.format) found.push(h("span", { class: "badge" }, version.format));
  if (why?.trouble) found.push(h("span", { class: "badge bad", title: why.trouble.reason }, "trouble"));
  else if (why?.refused) found.push(h("span", { class: "badge bad" }, `${plural(why.refused, "partition")} refused`));
  else if (why?.syncing) found.push(h("span", { class: "badge warn" }, `${plural(why.syncing, "partition")} syncing`));
  else if (why && version) found.push(h("span", { class: "badge good" }, "complete"));
  return found;
}

function facts(version) {
  const fact = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));
  return h("dl", { class: "facts strip" },
    fact("Rows", show.count(version.rows)), fact("Size", show.bytes(version.bytes)), fact("Files", show.count(version.files)),
    fact("Partitions", show.count(version.partitions)), fact("Committed", show.ago(version.committed_ms)),
    fact("Location", h("span", { class: "mono", title: version.location }, version.location)));
}

function notices({ name, about, version, wanted }) {
  const found = [];
  if (about.removing_not_before_ms) {
    found.push(h("p", { class: "notice warn" }, "Marked for removal. ", h("code", null, `terrace dataset delete ${name} --keep`), " takes the mark away."));
  }
  if (version?.state === "degraded") {
    found.push(h("p", { class: "notice warn" }, `Files have changed under v${version.version}: ${version.reason ?? "no reason given"}.`));
  }
  const hidden = version?.sql?.partitions_left_out;
  if (hidden) {
    found.push(h("p", { class: "notice warn" }, `SQL engines do not see ${plural(hidden, "partition")}: ${version.sql.example ?? "no reason given"}.`));
  }
  if (version && wanted && version.version !== about.latest) {
    found.push(h("p", { class: "notice" }, `This is v${version.version}; the latest is `,
      h("a", { href: `#/t/${name}` }, `v${about.latest}`), "."));
  }
  return found;
}

/**
 * Shows what happens to the table while it is looked at, without taking anything out of a hand. Watches from
 * before the first question on; what came before the page was drawn is told when it is, by the call returned.
 */
function watch(page, name, wanted) {
  let isDrawn = false;
  let early = null;
  let isKnown = false;
  const tell = (item) => {
    isKnown = true;
    // Who has the focus on something, or follows a warm-up, keeps the page.
    const isUsed = page.place.contains(document.activeElement) || page.place.querySelector(".job, #warm:disabled");
    const news = item.version ? `v${item.version}: ${item.kind.replaceAll("_", " ")}` : item.kind.replaceAll("_", " ");
    speak(`${name}: ${news}`);
    if (!wanted && !isUsed) {
      page.again();
      return;
    }
    page.place.prepend(h("p", { class: "notice" }, `${news}. `,
      h("button", { type: "button", class: "plain", onclick: page.again }, "Show")));
  };
  page.onEvent((item) => {
    if (item.dataset !== name || isKnown) return;
    if (isDrawn) tell(item);
    else if (early === null || early.kind === "version_committed") early = item;
  });
  return (table) => {
    isDrawn = true;
    const isShown = early?.kind === "version_committed" && early.version <= (table.about.latest ?? 0);
    if (early && !isShown) tell(early);
  };
}
