// How to read a version: one snippet for each way, ready to be copied.

import { card, code, h, put } from "./dom.js";

/** Where snippets take the tree of tables to be mounted. */
const MOUNT = "/data";

export function howTo(table) {
  const place = h("div");
  const ways = snippets(table);
  const buttons = Object.keys(ways).map((name) => h("button", { type: "button", class: "segment", onclick: () => choose(name) }, name));
  const choose = (name) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === name));
    const { text, note } = ways[name];
    put(place, code(text), note && h("p", { class: "dim small" }, note));
  };
  choose(Object.keys(ways)[0]);
  return card("Use it", h("div", { class: "segments", role: "group", "aria-label": "Way" }, buttons), place);
}

function snippets({ name, version, about, wanted }) {
  const [namespace, table] = [name.slice(0, name.indexOf(".")), name.slice(name.indexOf(".") + 1)];
  const at = wanted ?? `v${version.version}`;
  const path = `${MOUNT}/${namespace}/${table}@${at}`;
  const isModel = about.kind === "model";
  const mounted = `With the tree of tables mounted at ${MOUNT}; without @${at} it is the latest version.`;
  return {
    Path: { text: `terrace mount catalog: ${MOUNT} \\\n  --catalog ${location.origin}\nls ${path}`, note: mounted },
    PVC: { text: claim(namespace, table, at, isModel, version), note: "Mounts exactly this version in every pod that names the claim." },
    ...(isModel ? { Python: { text: huggingFace(namespace, table, at), note: `No copy and no network: the tree is below ${MOUNT}/.hf.` } } : {
      DuckDB: isSql(version) ? { text: attach(namespace, table, version), note: `By its name, with a token that may read it; with the tree of tables mounted at ${MOUNT}.` }
        : { text: duckdb(path, version), note: mounted },
      pandas: { text: pandas(path, version), note: mounted },
      ...(isSql(version) && { Polars: { text: polars(name, version), note: "With polars and pyiceberg; reads only the files that a filter needs." } }),
    }),
  };
}

function claim(namespace, table, at, isModel, version) {
  const attribute = isModel ? `model: ${namespace}/${table}@${at}` : `dataset: ${namespace}.${table}@${at}`;
  // Names of objects in Kubernetes have lower-case letters, digits and dashes.
  const name = `${namespace}-${table}-${at}`.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  const size = `${Math.max(1, Math.ceil(version.bytes / 2 ** 30))}Gi`;
  return `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: ${name}
provisioner: data.terrace.io
parameters:
  ${attribute}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: ${name}
spec:
  storageClassName: ${name}
  accessModes: [ReadOnlyMany]
  resources:
    requests:
      storage: ${size}`;
}

/** Whether SQL engines find it by name. */
const isSql = (version) => Boolean(version.sql) && !version.sql.reason;

function attach(namespace, table, version) {
  return `INSTALL iceberg; LOAD iceberg;
ATTACH 'file://${MOUNT}' AS t (TYPE iceberg,
  ENDPOINT '${location.origin}/iceberg', TOKEN '…');
SELECT * FROM t.${quoted(namespace)}.${quoted(table)}
  AT (VERSION => ${version.version}) LIMIT 10;`;
}

const quoted = (word) => /^[a-z_][a-z0-9_]*$/i.test(word) ? word : `"${word}"`;

function polars(name, version) {
  return `import polars
from pyiceberg.catalog.rest import RestCatalog

catalog = RestCatalog("terrace", uri="${location.origin}/iceberg",
    token=TOKEN, warehouse="file://${MOUNT}")
table = catalog.load_table("${name}")
polars.scan_iceberg(table, snapshot_id=${version.version}).head(10).collect()`;
}

const isParquet = (version) => ["parquet", "delta", "iceberg"].includes(version.format);
const hive = (version) => version.partition_columns.length > 0;

function duckdb(path, version) {
  const options = hive(version) ? ", hive_partitioning = true" : "";
  const from = {
    csv: `read_csv('${path}/**/*.csv'${options})`,
    jsonl: `read_json('${path}/**/*.json*'${options})`,
  }[version.format] ?? (isParquet(version) ? `read_parquet('${path}/**/*.parquet'${options})` : `glob('${path}/**')`);
  return `SELECT *\nFROM ${from}\nLIMIT 10;`;
}

function pandas(path, version) {
  if (isParquet(version)) return `import pandas as pd\n\ndf = pd.read_parquet("${path}")`;
  const reader = { csv: "pd.read_csv(file)", jsonl: "pd.read_json(file, lines=True)" }[version.format];
  if (!reader) return `from pathlib import Path\n\nfiles = [f for f in Path("${path}").rglob("*") if f.is_file()]`;
  return `from pathlib import Path\nimport pandas as pd\n\nfiles = [f for f in Path("${path}").rglob("*") if f.is_file()]\ndf = pd.concat(${reader} for file in files)`;
}

function huggingFace(namespace, table, at) {
  return `import os
os.environ["HF_HUB_CACHE"] = "${MOUNT}/.hf"
os.environ["HF_HUB_OFFLINE"] = "1"
from huggingface_hub import snapshot_download

path = snapshot_download("${namespace}/${table}", revision="${at}")`;
}
