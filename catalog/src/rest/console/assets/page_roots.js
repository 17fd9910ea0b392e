// The places that discovery watches: what was found there, what was refused, and what is wrong.

import { find, post, remove } from "./api.js";
import { card, code, h, problem, put, skeleton, speak, state } from "./dom.js";
import { count, plural, span } from "./format.js";

const REFUSED_SHOWN = 50;
/** What is found below a root, and whether it can be reached, is asked for this often. */
const LOOK_MS = 5000;

export async function roots(page) {
  page.title("Sync roots");
  const list = h("div", { id: "roots" }, skeleton(5, 28));
  const below = h("div");
  put(page.place, h("div", { class: "tools" }, h("h1", null, "Sync roots")), list, below);
  // What has the focus, or was opened, is not taken out of a hand; what was asked for is shown in any case.
  const isUsed = () => list.contains(document.activeElement) || list.querySelector("details[open]");
  const load = async ({ isAsked = true } = {}) => {
    const found = await find("/roots", null, page.signal);
    if (found !== null && (isAsked || !isUsed())) {
      put(list, found.items.length ? found.items.map((root) => one(root, page, load)) : noRoot());
    }
    return found;
  };
  try {
    if (await load() === null) {
      put(list, state("This catalog watches no places", "It was started without discovery; datasets are registered by hand."));
      return;
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    put(list, error.status === 403
      ? state("Roots need an administrator's token", error.message, h("p", { class: "dim" }, "Tables that you may list are under Datasets; each says there why it is, or is not, published."))
      : problem(error, page.again));
    return;
  }
  put(below, form(page, load));
  keepTrue(page, load);
}

/** Looks again and again, while somebody looks. */
function keepTrue(page, load) {
  const look = setInterval(() => {
    // An error here is one of the next question too, which says so.
    if (document.visibilityState === "visible") load({ isAsked: false }).catch(() => {});
  }, LOOK_MS);
  page.signal.addEventListener("abort", () => clearInterval(look));
}

function noRoot() {
  return state("No root yet", "Watch the place that your sync system writes to, here or with the command line:",
    code("terrace sync add s3://bucket/warehouse --namespace ads"));
}

function one(root, page, load) {
  const said = h("p", { class: "bad-text", role: "alert" });
  return card(h("span", { class: "mono" }, root.url), forget(root, page, load, said), said, body(root));
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
function forget(root, page, load, said) {
  const button = h("button", { type: "button", class: "quiet", "aria-label": `Stop watching ${root.url}` }, "Stop watching");
  const ask = (isSure) => {
    button.textContent = isSure ? "Stop watching? Published versions stay" : "Stop watching";
    button.setAttribute("aria-label", isSure ? `Really stop watching ${root.url}? Published versions stay` : `Stop watching ${root.url}`);
    button.classList.toggle("danger", isSure);
  };
  button.addEventListener("blur", () => ask(false));
  button.addEventListener("keydown", (event) => event.key === "Escape" && ask(false));
  button.addEventListener("click", async () => {
    if (!button.classList.contains("danger")) {
      ask(true);
      return;
    }
    said.textContent = "";
    try {
      await remove("/roots", { url: root.url }, page.signal);
      speak(`${root.url} is watched no more`);
      await load();
      document.getElementById("root-url")?.focus();
    } catch (error) {
      if (error.name === "AbortError") return;
      ask(false);
      explain(said, error);
    }
  });
  return button;
}

/** What went wrong, in the catalog's words, and what to try. */
function explain(place, error) {
  put(place, error.message, error.hint && h("span", { class: "dim" }, ` Try: ${error.hint}`));
}

const LAYOUTS = { hive: "hive: db.db/table/key=value", flat: "flat: table/file", descriptor: "descriptor: a file names it" };
const SIGNALS = { "success-file": "_SUCCESS is newest", "partition-marker": "_SUCCESS in each partition",
  quiescence: "quiet for 10 min", manifest: "a manifest file agrees", call: "the sync system calls" };

function choice(id, words) {
  return h("select", { id }, Object.entries(words).map(([value, text]) => h("option", { value }, text)));
}

function form(page, load) {
  const url = h("input", { id: "root-url", required: true, placeholder: "s3://bucket/warehouse", spellcheck: "false", autocomplete: "off",
    "aria-describedby": "root-said" });
  const namespace = h("input", { id: "root-ns", class: "short", placeholder: "from the database's name", spellcheck: "false", autocomplete: "off" });
  const layout = choice("root-layout", LAYOUTS);
  const signal = choice("root-completion", SIGNALS);
  const button = h("button", { type: "submit", class: "main", id: "root-add" }, "Watch");
  const said = h("p", { class: "bad-text", role: "alert", id: "root-said" });
  const made = h("form", { class: "line-form", id: "root-form" },
    h("label", { for: "root-url" }, "Place", url), h("label", { for: "root-ns" }, "Namespace", namespace),
    h("label", { for: "root-layout" }, "Layout", layout), h("label", { for: "root-completion" }, "Complete when", signal), button);
  // What was said was said of another place.
  url.addEventListener("input", () => {
    said.textContent = "";
    url.removeAttribute("aria-invalid");
  });
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "";
    url.removeAttribute("aria-invalid");
    const place = url.value.trim();
    const spec = { layout: layout.value, completion: signal.value, ...(namespace.value.trim() && { namespace: namespace.value.trim() }) };
    button.disabled = true;
    try {
      await post("/roots", { url: place, spec }, page.signal);
      speak(`${place} is watched`);
      made.reset();
      await load();
    } catch (error) {
      if (error.name === "AbortError") return;
      url.setAttribute("aria-invalid", "true");
      explain(said, error);
    } finally {
      button.disabled = false;
      url.focus();
    }
  });
  return card("Watch another place", null, made, said);
}
