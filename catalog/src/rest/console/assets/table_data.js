// What is in a table: the first rows of one of its files, and its columns.

import { dataset, get } from "./api.js";
import { h, problem, put, skeleton, state, table } from "./dom.js";
import { type } from "./format.js";

const ROWS = 50;
/** Longer cells are cut on the screen; the whole text is in their title. */
const CELL = 120;

export async function sample(page, { name, version }, place) {
  if (!version) return void put(place, state("No version yet", "There are no rows before the first version."));
  put(place, skeleton(10, 24));
  try {
    const found = await get(dataset(name, "versions", `v${version.version}`, "sample"), { limit: ROWS }, page.signal);
    const about = h("p", { class: "dim small" }, found.file
      ? ["First rows of ", h("span", { class: "mono" }, found.file)] : "", found.note ? [found.file ? " · " : "", found.note] : "");
    if (found.columns.length === 0) {
      put(place, state("No rows to show", found.note ?? "The version has no files."));
      return;
    }
    const columns = found.columns.map((column, at) => ({
      head: [h("span", { class: "column" }, column.name), h("span", { class: "dim column-type" }, column.type)],
      cls: isNumber(column.type) ? "num" : null,
      cell: (row) => cell(row[at]),
      title: (row) => text(row[at]),
    }));
    put(place, about, table(`First rows of ${name}`, columns, found.rows, "rows sample"));
  } catch (error) {
    if (error.name !== "AbortError") put(place, problem(error, page.again));
  }
}

function isNumber(kind) {
  return /^(u?int|float|decimal)/.test(kind);
}

function text(value) {
  if (value === null || value === undefined) return "no value";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function cell(value) {
  if (value === null || value === undefined) return h("span", { class: "null" }, "null");
  const whole = text(value);
  return whole.length > CELL ? `${whole.slice(0, CELL)}…` : whole;
}

/** The columns of a version: those of its files, then those that only directories tell. */
export function columnsOf(version) {
  const fields = version?.schema?.fields ?? [];
  const keys = version?.partition_columns ?? [];
  const isKey = (name) => keys.some((key) => key.name === name);
  return [
    ...fields.map((field) => ({ name: field.name, kind: type(field.type), isKey: isKey(field.name),
      values: field.nullable ? "may be null" : "never null" })),
    ...keys.filter((key) => !fields.some((field) => field.name === key.name))
      .map((key) => ({ name: key.name, kind: key.type, isKey: true, values: "of the partition" })),
  ].map((column, at) => ({ ...column, at: at + 1 }));
}

export function schema(page, { version }, place) {
  const rows = columnsOf(version);
  if (rows.length === 0) {
    put(place, state("No columns", `Files of the format “${version.format}” are shown as files.`));
    return;
  }
  const filter = h("input", { id: "filter", type: "search", placeholder: "Filter columns", "aria-label": "Filter columns", spellcheck: "false" });
  const list = h("div");
  const draw = () => {
    const wanted = filter.value.trim().toLowerCase();
    const found = rows.filter((row) => row.name.toLowerCase().includes(wanted));
    put(list, found.length ? table("Columns", columns, found, "rows") : state("No such column", `No name contains “${filter.value}”.`));
  };
  filter.addEventListener("input", draw);
  put(place, rows.length > 12 && h("div", { class: "tools" }, filter), list);
  draw();
}

const columns = [
  { head: "#", cls: "num dim slim", cell: (row) => row.at },
  { head: "Column", cls: "mono", cell: (row) => [row.name, row.isKey && h("span", { class: "badge" }, "partition")] },
  { head: "Type", cls: "mono", cell: (row) => row.kind },
  { head: "Values", cls: "dim", cell: (row) => row.values },
];
