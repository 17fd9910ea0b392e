// Numbers as people read them; the exact value is always one hover away.

import { h } from "./dom.js";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const exact = new Intl.NumberFormat("en-US");

/** 1.25 GiB. */
export function bytes(value) {
  let unit = 0;
  let size = value;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return `${size.toFixed(digits)} ${UNITS[unit]}`;
}

/** 12,345; 1.23 M from a million on. */
export function count(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1e6) return exact.format(value);
  const [unit, by] = value < 1e9 ? ["M", 1e6] : value < 1e12 ? ["B", 1e9] : ["T", 1e12];
  return `${(value / by).toFixed(2)} ${unit}`;
}

/** "1 file", "2 files". */
export function plural(value, word) {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

/** 40 s, 12 min, 3 h, 2 d. */
export function span(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** How long ago; a clock that is behind shows "now". */
export function ago(ms) {
  const seconds = (Date.now() - ms) / 1000;
  return seconds < 5 ? "now" : `${span(seconds)} ago`;
}

/** A moment, to the second, in the reader's time zone. */
export function moment(ms) {
  return new Date(ms).toLocaleString("sv-SE");
}

/** Elements of these, with the exact value as title. */
export const show = {
  bytes: (value) => value === null || value === undefined ? "–"
    : h("span", { title: `${exact.format(value)} bytes` }, bytes(value)),
  count: (value) => value === null || value === undefined ? "–" : h("span", { title: exact.format(value) }, count(value)),
  ago: (ms) => ms === null || ms === undefined ? "–"
    : h("time", { datetime: new Date(ms).toISOString(), title: moment(ms), "data-ms": ms }, ago(ms)),
};

/** Ages grow while a page is looked at. */
export function keepAgesTrue() {
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-ms]")) time.textContent = ago(Number(time.dataset.ms));
  }, 10000);
}

/** A type as the schema writes it: a word, or an object of one member. */
export function type(kind) {
  if (typeof kind === "string") return kind;
  if (kind === null || typeof kind !== "object") return String(kind);
  const [name, of] = Object.entries(kind)[0] ?? ["?", null];
  switch (name) {
    case "list": return `list<${type(of.type)}>`;
    case "map": return `map<${type(of.key.type)}, ${type(of.value.type)}>`;
    case "struct": return `struct<${of.map((field) => `${field.name}: ${type(field.type)}`).join(", ")}>`;
    case "decimal": return `decimal(${of.precision}, ${of.scale})`;
    case "fixed": return `fixed(${of})`;
    case "unknown": return of;
    default: return name;
  }
}
