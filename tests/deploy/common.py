"""What the checks of `deploy/` share: rendering the chart, the schemas, and saying what is wrong.

Run by the Python of tests/servers/packaging.py, which has Helm's SDK (`helm_python`), the schemas of the
Kubernetes releases (`kubernetes_validate`) and YAML; the programs lie beside it.
"""

import copy
import subprocess
import sys
from pathlib import Path

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "terrace"
TOOLS = Path(sys.executable).parent
NAMESPACE = "terrace-system"
# The release that the chart was proven on first, and the three newest ones.
KUBERNETES = ("1.34", "1.35", "1.36", "1.37")
# Values that draw in everything that is off by default.
EVERYTHING = {
    "priorityClass": {"create": True},
    "imagePullSecrets": [{"name": "registry"}],
    "keeper": {"warm": {"hostPath": "/mnt/pfs"}, "hot": {"size": "500GiB"}, "seLinuxOptions": {"type": "spc_t"},
               "config": {"cache": {"store": {"concurrency": 32, "deadline": "2m"}}}},
    "stores": {"credentialsSecret": "stores", "hadoopConfigMap": "hadoop"},
    "csi": {"data": {"inline": "with-token", "podTokens": True, "directories": ["/mnt/pfs/volumes", "/mnt/homes"],
                     "spool": {"hostPath": "/ssd/spool", "size": "200GiB"}, "snapshots": True,
                     "cold": ["s3://archive/terrace", "hdfs://archive/terrace"],
                     "copies": {"enabled": True, "capabilities": ["MKNOD", "SETFCAP", "SYS_ADMIN"]}},
            "local": {"limits": "xfs-project", "keepFree": "10GiB", "onRoot": True, "snapshots": True},
            "podLabels": {"team": "storage"}},
    "catalog": {"replicas": 3, "database": {"secret": "database"}, "cold": ["s3://models/terrace"],
                "credentialsSecret": "cold", "persistence": {"accessModes": ["ReadWriteMany"]},
                "grants": [{"namespace": "ml", "account": "train", "grants": ["read:ads"]}],
                "issuers": [{"issuer": "https://login.example.com", "audience": "terrace", "clock_skew_seconds": 30,
                             "grants": [{"claim": "groups", "value": "ml", "grants": ["read:*"]}]}]},
    "storageClasses": {"terrace-checkpoints": {
        "provisioner": "data.terrace.io", "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate",
        "allowVolumeExpansion": True, "parameters": {
            "directory": "file:///mnt/pfs/volumes/checkpoints", "durability": "ckpt/**:fsync=local;fsync=shared",
            "cold": "s3://archive/terrace/checkpoints", "tenant": "vision"}}},
    "volumeSnapshotClasses": {"usual": {"driver": "data.terrace.io", "deletionPolicy": "Retain", "annotations": {
        "snapshot.storage.kubernetes.io/is-default-class": "true"}}},
    "controller": {"startupTaint": True},
    "tls": {"source": "certManager"},
    "metrics": {"operator": True, "dashboard": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"catalogFrom": [{"namespaceSelector": {}}]},
}
# Values under which as little as possible is left.
LITTLE = {
    "csi": {"local": {"enabled": False}, "tolerateAllTaints": False}, "webhook": {"enabled": False},
    "keeper": {"tolerateAllTaints": False, "hostNetwork": False},
    "catalog": {"enabled": False, "url": "https://catalog.example.com:7420"},
    "networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False},
}


class Problems:
    """Everything that is wrong, said at once."""

    def __init__(self):
        self.found: list[str] = []

    def add(self, text: str) -> None:
        self.found.append(text)

    def check(self, good: bool, text: str) -> None:
        if not good:
            self.add(text)

    def end(self, what: str) -> None:
        """Ends the process: with 1 and the list, or with one line."""
        if self.found:
            sys.exit("\n".join([f"{what}: {len(self.found)} wrong", *(f"  {line}" for line in self.found)]))
        print(f"{what}: good")


def merged(base: dict, over: dict) -> dict:
    """Maps merged as Helm does; anything else is replaced."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def render(values: dict | None = None) -> list[dict]:
    """The chart's objects, those of `crds/` included."""
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(chart.merge_values(values or {}))
        files = chart.render(values or {}, name="terrace", namespace=NAMESPACE)
    texts = [text for name, text in sorted(files.items()) if not name.endswith((".txt", ".tpl"))]
    texts += [path.read_text() for path in sorted((CHART / "crds").glob("*.yaml"))]
    return objects("\n---\n".join(texts))


def objects(text: str) -> list[dict]:
    """The objects of a YAML stream."""
    return [found for found in yaml.safe_load_all(text) if found]


def identity(found: dict) -> str:
    """Kind and name of an object, for messages and for comparing."""
    meta = found["metadata"]
    return f"{found['kind']} {meta.get('namespace', '')}/{meta['name']}"


def pod_of(found: dict) -> dict | None:
    """The pod's specification in an object that has one."""
    if found["kind"] == "Pod":
        return found["spec"]
    if found["kind"] in ("DaemonSet", "Deployment", "StatefulSet", "Job"):
        return found["spec"]["template"]["spec"]
    return None


def run(argv: list[str], **options) -> subprocess.CompletedProcess:
    """A program's status and what it said, with a limit."""
    return subprocess.run(argv, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, **options)
