// A line over versions: an SVG drawn here, with the same numbers as a table for who does not see it.

import { h, put, s } from "./dom.js";

const WIDTH = 640;
const HEIGHT = 190;
const LEFT = 70;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 26;
/** Dots would touch above this. */
const DOTS = 60;

/**
 * `points` are {at, value, name, note, href} in the order of `at`; `format` writes a value; `selected` is
 * the `at` of the point that the page is about.
 */
export function chart({ label, points, format, selected }) {
  const top = ceiling(Math.max(1, ...points.map((point) => point.value)), format);
  const x = (index) => points.length === 1 ? (LEFT + WIDTH - RIGHT) / 2
    : LEFT + (index / (points.length - 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
  const readout = h("p", { class: "readout" });
  const tell = (point) => put(readout, h("b", null, point.name), ` ${format(point.value)} `, h("span", { class: "dim" }, point.note));
  const line = points.map((point, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(point.value).toFixed(1)}`).join("");
  const floor = y(0);
  const area = points.length > 1 ? `${line}L${x(points.length - 1).toFixed(1)} ${floor}L${x(0).toFixed(1)} ${floor}Z` : "";
  const mark = s("line", { class: "chart-mark", y1: TOP, y2: floor });
  const show = (at) => {
    tell(points[at]);
    for (const side of ["x1", "x2"]) mark.setAttribute(side, x(at));
  };
  const dots = points.map((point, at) => dot(point, x(at), y(point.value), {
    isSelected: point.at === selected, isSmall: points.length > DOTS, tell: () => show(at),
  }));
  const drawing = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "group", "aria-label": label },
    [0, 0.5, 1].map((part) => rule(part * top, y, format)), ends(points, x),
    s("path", { d: area, class: "chart-area" }), s("path", { d: line, class: "chart-line" }), mark, dots);
  const start = Math.max(0, points.findIndex((point) => point.at === selected));
  show(start);
  return h("div", null, drawing, readout, alternative(label, points, format));
}

/** A round number above all values, so that the line does not touch the edge. */
function ceiling(most, format) {
  const base = format(1024).includes("KiB") ? 1024 : 1000;
  const unit = base ** Math.floor(Math.log(most) / Math.log(base));
  const steps = [1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000];
  return (steps.find((step) => step * unit >= most * 1.04) ?? base) * unit;
}

function rule(value, y, format) {
  const at = y(value);
  return s("g", null, s("line", { class: "chart-rule", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }),
    s("text", { class: "chart-text", x: LEFT - 8, y: at + 4, "text-anchor": "end" }, value === 0 ? "0" : format(value)));
}

function ends(points, x) {
  const [first, last] = [points[0], points.at(-1)];
  const text = (point, at, anchor) => s("text", { class: "chart-text", x: at, y: HEIGHT - 7, "text-anchor": anchor },
    `${point.name} · ${point.note.slice(0, 10)}`);
  if (points.length === 1) return text(first, x(0), "middle");
  return [text(first, LEFT, "start"), text(last, WIDTH - RIGHT, "end")];
}

function dot(point, x, y, { isSelected, isSmall, tell }) {
  const size = isSelected ? 5 : isSmall ? 1.5 : 3.5;
  const shape = s("a", { href: point.href, "aria-label": `${point.name}, ${point.note}`, tabindex: isSmall && !isSelected ? -1 : 0 },
    s("circle", { cx: x, cy: y, r: 10, class: "chart-reach" }),
    s("circle", { cx: x, cy: y, r: size, class: isSelected ? "chart-dot on" : "chart-dot" }));
  shape.addEventListener("pointerenter", tell);
  shape.addEventListener("focus", tell);
  return shape;
}

function alternative(label, points, format) {
  const newest = [...points].reverse();
  return h("details", { class: "small" }, h("summary", null, "As a table"),
    h("div", { class: "scroll short", tabindex: 0 }, h("table", { class: "rows tight" }, h("caption", { class: "sr" }, label),
      h("thead", null, h("tr", null, ["Version", "Value", "Committed"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", null, newest.map((point) => h("tr", null, h("th", { scope: "row" }, point.name),
        h("td", { class: "num", title: String(point.value) }, format(point.value)), h("td", null, point.note)))))));
}
