// Elements from values. Every text becomes a text node: no name, comment or cell of a dataset is ever
// read as markup. Nothing in the console parses text as markup, and the page's policy forbids it.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** An element: h("a", {href: "#/"}, "text", other). */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An element of a drawing. */
export function s(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** Replaces what is in an element. */
export function put(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** Says something to who does not see the page. */
export function speak(text) {
  document.getElementById("spoken").textContent = text;
}

/** A table: columns are {head, cls, cell(row)}; the caption is for who does not see it. */
export function table(caption, columns, rows, cls = "") {
  const head = columns.map((column) => h("th", { scope: "col", class: column.cls }, column.head));
  const body = rows.map((row) => h("tr", null, columns.map((column) => {
    const cell = column.cell(row);
    const node = h("td", { class: column.cls }, cell);
    if (column.title) node.title = column.title(row);
    return node;
  })));
  return h("div", { class: "scroll", tabindex: rows.length > 8 ? 0 : null, role: rows.length > 8 ? "region" : null,
    "aria-label": rows.length > 8 ? caption : null },
  h("table", { class: cls }, h("caption", { class: "sr" }, caption),
    h("thead", null, h("tr", null, head)), h("tbody", null, body)));
}

/** Grey bars in the shape of what comes, so that nothing jumps when it is there. */
export function skeleton(lines = 6, height = 20) {
  const bars = Array.from({ length: lines }, (_, at) => {
    const bar = h("div", { class: "bone" });
    bar.style.height = `${height}px`;
    bar.style.width = `${96 - ((at * 17) % 38)}%`;
    return bar;
  });
  return h("div", { class: "bones", "aria-hidden": "true" }, bars);
}

/** A state without data: what is so, and what to do next. */
export function state(title, text, ...more) {
  return h("div", { class: "state" }, h("p", { class: "state-title" }, title), text && h("p", null, text), more);
}

/** What went wrong, in the catalog's own words, and what to try. */
export function problem(error, again) {
  const titles = { 0: "The catalog does not answer", 403: "Your token does not reach this", 404: "There is nothing here" };
  return h("div", { class: "state bad", role: "alert" }, h("p", { class: "state-title" }, titles[error.status] ?? "The catalog refused this"),
    h("p", null, error.message), error.hint && h("p", { class: "dim" }, `Try: ${error.hint}`),
    again && h("button", { type: "button", class: "plain", onclick: again }, "Try again"));
}

/** A section with a heading. */
export function card(title, aside, ...children) {
  return h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", null, title), aside), children);
}

/** A command or a piece of code with a button that copies it. */
export function code(text, label = "Copy") {
  const button = h("button", { type: "button", class: "copy", "aria-label": `${label}: ${text.split("\n")[0]}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copy(text, block);
    button.textContent = done ? "Copied" : "Selected";
    speak(done ? "Copied" : "Selected; press Ctrl-C to copy");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  const block = h("pre", { tabindex: 0 }, text);
  return h("div", { class: "code" }, block, button);
}

// The clipboard is there on secure origins and on loopback only; elsewhere the text is selected.
async function copy(text, block) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const range = document.createRange();
    range.selectNodeContents(block);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return false;
  }
}
