// A bar that shows a part of a whole, with the numbers beside it.

import { h } from "./dom.js";
import { bytes } from "./format.js";

/** How much of `whole` is there. Never shows the whole before it is reached. */
export function share(part, whole) {
  if (!whole) return 0;
  const percent = (part / whole) * 100;
  return part >= whole ? 100 : Math.min(99, Math.floor(percent));
}

export function meter(part, whole, label, cls = "") {
  const percent = share(part, whole);
  const text = whole ? `${bytes(part)} of ${bytes(whole)}` : bytes(part);
  const inner = h("span", { class: "meter-part" });
  inner.style.width = `${percent}%`;
  return h("span", { class: `meter ${cls}`, title: `${part} of ${whole} bytes` },
    h("span", { class: "meter-whole", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100,
      "aria-valuenow": percent, "aria-valuetext": `${percent}%, ${text}` }, inner),
    h("span", { class: "meter-text" }, whole ? `${percent}%` : "", h("span", { class: "dim" }, ` ${text}`)));
}
