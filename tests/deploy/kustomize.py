"""deploy/kubernetes is the chart for people who use kustomize: the base is rendered from it, and each overlay
says with patches what its values.yaml says to the chart.

    kustomize.py            whether both are the same
    kustomize.py --write    renders the base again
"""

import json
import sys
from pathlib import Path

import yaml

import schemas
from common import DEPLOY, NAMESPACE, TOOLS, Problems, identity, merged, objects, render, run

HERE = DEPLOY / "kubernetes"
BASE = HERE / "base"
HEADER = "# Rendered from deploy/helm/terrace by tests/deploy/kustomize.py --write; change the chart.\n"
# Marks of Helm that mean nothing here.
HELM = ("app.kubernetes.io/managed-by",)


def plain(found: dict) -> dict:
    """An object without what only Helm writes."""
    found = json.loads(json.dumps(found))
    places = [found["metadata"], found.get("spec", {}).get("template", {}).get("metadata", {})]
    for place in (place for place in places if isinstance(place, dict)):
        for key in HELM:
            place.get("labels", {}).pop(key, None)
        place.get("annotations", {}).pop("helm.sh/resource-policy", None)
        # It changes with the chart's text, and the hash would be that of another file here.
        place.get("annotations", {}).pop("checksum/config", None)
        for key in ("labels", "annotations"):
            if place.get(key) == {}:
                del place[key]
    return found


def chart(values: Path) -> dict[str, dict]:
    return {identity(one): plain(one) for one in render(yaml.safe_load(values.read_text()))}


def files(found: dict[str, dict]) -> dict[str, str]:
    """The base: one file for each component, and what lists them."""
    parts: dict[str, list[dict]] = {}
    for one in found.values():
        labels = one["metadata"].get("labels", {})
        parts.setdefault(labels.get("app.kubernetes.io/component", "definitions"), []).append(one)
    texts = {}
    for name, those in sorted(parts.items()):
        ordered = sorted(those, key=identity)
        texts[f"{name}.yaml"] = HEADER + yaml.safe_dump_all(ordered, sort_keys=True, width=1000)
    listed = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
              "resources": ["namespace.yaml", *texts]}
    texts["kustomization.yaml"] = HEADER + yaml.safe_dump(listed, sort_keys=False)
    space = {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    texts["namespace.yaml"] = HEADER + yaml.safe_dump(space)
    return texts


def write() -> None:
    for old in BASE.glob("*.yaml"):
        old.unlink()
    for name, text in files(chart(HERE / "values.yaml")).items():
        (BASE / name).write_text(text)


def built(directory: Path, problems: Problems) -> dict[str, dict]:
    done = run([str(TOOLS / "kubectl"), "kustomize", str(directory)])
    problems.check(done.returncode == 0 and not done.stderr, f"kubectl kustomize {directory.name}: {done.stderr}")
    return {identity(one): one for one in objects(done.stdout) if one["kind"] != "Namespace"}


def same(name: str, ours: dict[str, dict], theirs: dict[str, dict], problems: Problems) -> None:
    for missing in sorted(theirs.keys() - ours.keys()):
        problems.add(f"{name}: lacks {missing}")
    for over in sorted(ours.keys() - theirs.keys()):
        problems.add(f"{name}: has {over}, which the chart has not")
    for key in sorted(ours.keys() & theirs.keys()):
        for path, mine, other in differences(ours[key], theirs[key], ""):
            problems.add(f"{name}: {key}{path}: {mine} and in the chart {other}")


def differences(mine, other, path: str):
    """Places where two values differ."""
    if isinstance(mine, dict) and isinstance(other, dict):
        for key in sorted(mine.keys() | other.keys()):
            yield from differences(mine.get(key), other.get(key), f"{path}.{key}")
    elif isinstance(mine, list) and isinstance(other, list) and len(mine) == len(other):
        for at, (one, two) in enumerate(zip(mine, other)):
            yield from differences(one, two, f"{path}[{at}]")
    elif mine != other:
        yield path, mine, other


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        write()
        return
    problems = Problems()
    wanted = files(chart(HERE / "values.yaml"))
    there = {path.name: path.read_text() for path in BASE.glob("*.yaml")}
    problems.check(wanted == there, "deploy/kubernetes/base is old; run tests/deploy/kustomize.py --write")
    base = built(BASE, problems)
    same("base", base, chart(HERE / "values.yaml"), problems)
    overlays = sorted((HERE / "overlays").iterdir())
    for overlay in overlays:
        ours = built(overlay, problems)
        same(overlay.name, ours, chart(overlay / "values.yaml"), problems)
        schemas.check(overlay.name, list(ours.values()), problems)
    # A comparison that sees nothing would find everything equal.
    changed = merged(base, {"DaemonSet terrace-system/terrace-keeper": {"spec": {"minReadySeconds": 1}}})
    probe = Problems()
    same("probe", changed, base, probe)
    problems.check(len(probe.found) == 1, "a difference is not seen")
    problems.end(f"kustomize base of {len(base)} objects and {len(overlays)} overlays")


main()
