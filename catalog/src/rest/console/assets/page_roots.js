// The places that discovery watches: what was found there, what was refused, and what is wrong.

import { find, post, remove } from "./api.js";
import { card, code, h, problem, put, skeleton, speak, state } from "./dom.js";
import { count, plural, span } from "./format.js";

const REFUSED_SHOWN = 50;

export async function roots(page) {
  page.title("Sync roots");
  const list = h("div", null, skeleton(5, 28));
  put(page.place, h("div", { class: "tools" }, h("h1", null, "Sync roots")), list);
  try {
    const found = await find("/roots", null, page.signal);
    if (found === null) {
      put(list, state("This catalog watches no places", "It was started without discovery; datasets are registered by hand."));
      return;
    }
    const items = found.items.map((root) => card(h("span", { class: "mono" }, root.url), forget(page, root), body(root)));
    put(list, items.length ? items : state("No root yet", "Watch the place that your sync system writes to:",
      code("terrace sync add s3://bucket/warehouse --namespace ads")), form(page));
  } catch (error) {
    if (error.name === "AbortError") return;
    put(list, error.status === 403
      ? state("Roots need an administrator's token", error.message, h("p", { class: "dim" }, "Tables that you may list are under Datasets; each says there why it is, or is not, published."))
      : problem(error, page.again));
  }
}

function body(root) {
  const refused = Object.entries(root.refused ?? {});
  const spec = root.spec ?? {};
  return [
    root.trouble && h("p", { class: "bad-text", role: "alert" }, `Not reachable: ${root.trouble}`),
    h("dl", { class: "facts" },
      fact("Tables", count(root.tables)),
      fact("Namespace", spec.namespace ?? "from the database's name"),
      fact("Layout", spec.layout),
      fact("Complete when", completion(spec)),
      fact("Full look at least every", span(spec.interval_seconds ?? 0))),
    refused.length > 0 && h("details", null,
      h("summary", null, `${plural(refused.length, "place")} below it not taken as a table`),
      h("table", { class: "rows tight" }, h("caption", { class: "sr" }, "Entries that are no tables"),
        h("tbody", null, refused.slice(0, REFUSED_SHOWN).map(([name, why]) =>
          h("tr", null, h("th", { scope: "row", class: "mono" }, name), h("td", null, typeof why === "string" ? why : JSON.stringify(why)))))),
      refused.length > REFUSED_SHOWN && h("p", { class: "dim" }, `and ${refused.length - REFUSED_SHOWN} more`)),
  ];
}

function completion(spec) {
  switch (spec.completion) {
    case "success-file": return `${spec.marker} is newer than every file`;
    case "partition-marker": return `each partition has its ${spec.marker}`;
    case "quiescence": return `nothing has changed for ${span(spec.quiet_seconds)}`;
    case "call": return "the sync system calls";
    case "manifest": return "a manifest file agrees";
    default: return spec.completion;
  }
}

function fact(name, value) {
  return h("div", null, h("dt", null, name), h("dd", null, value ?? "–"));
}

/** Asks once more: the second press removes. What was published stays in any case. */
function forget(page, root) {
  let isSure = false;
  const button = h("button", { type: "button", class: "quiet" }, "Stop watching");
  button.addEventListener("click", async () => {
    if (!isSure) {
      isSure = true;
      button.textContent = "Stop watching? Published versions stay";
      button.classList.add("danger");
      button.addEventListener("blur", () => {
        isSure = false;
        button.textContent = "Stop watching";
        button.classList.remove("danger");
      }, { once: true });
      return;
    }
    try {
      await remove("/roots", { url: root.url }, page.signal);
      speak("The root is watched no more");
      page.again();
    } catch (error) {
      if (error.name !== "AbortError") button.textContent = error.message;
    }
  });
  return button;
}

function form(page) {
  const url = h("input", { id: "root-url", required: true, placeholder: "s3://bucket/warehouse", spellcheck: "false", autocomplete: "off" });
  const namespace = h("input", { id: "root-ns", placeholder: "from the database's name", spellcheck: "false", autocomplete: "off" });
  const layout = h("select", { id: "root-layout" }, ["hive", "flat", "descriptor"].map((name) => h("option", null, name)));
  const said = h("p", { class: "bad-text", role: "alert" });
  const made = h("form", { class: "line-form" },
    h("label", { for: "root-url" }, "Place", url), h("label", { for: "root-ns" }, "Namespace", namespace),
    h("label", { for: "root-layout" }, "Layout", layout), h("button", { type: "submit", class: "main" }, "Watch"));
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "";
    const spec = { layout: layout.value, ...(namespace.value.trim() && { namespace: namespace.value.trim() }) };
    try {
      await post("/roots", { url: url.value.trim(), spec }, page.signal);
      page.again();
    } catch (error) {
      if (error.name !== "AbortError") said.textContent = error.message;
    }
  });
  return card("Watch another place", null, made, said);
}
