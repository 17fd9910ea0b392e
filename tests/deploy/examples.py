"""The examples: strictly valid, with attributes that the drivers know, and naming classes that are there."""

import re

import schemas
from common import DEPLOY, ROOT, Problems, identity, objects, pod_of, render

# No class: the claim names its volume.
NONE = {("StorageClass", "")}
# What examples must show, by file.
WANTED = {"dataset-pvc", "annotation", "inline", "scratch", "notebook", "checkpoints", "model", "attributes-class", "snapshot",
          "cold"}
# Values under which the chart makes each of its classes.
CLASSES = {"csi": {"data": {"directories": ["/mnt/pfs/volumes"], "snapshots": True}, "local": {"snapshots": True}}}
# Parameters that Kubernetes takes out before a driver sees them.
OF_KUBERNETES = "csi.storage.k8s.io/"
MOUNT = re.compile(r"^[a-z0-9_.@-]+:/[A-Za-z0-9._/-]+$")


def known_attributes() -> set[str]:
    """The keys that the parser of attributes names in its module text."""
    text = (ROOT / "csi" / "src" / "attributes.rs").read_text().split("use std")[0]
    return set(re.findall(r"^//!.*?\b([a-zA-Z]+): [a-z\"]", text, re.MULTILINE))


def attributes(one: dict):
    """Every map of attributes in an object."""
    if one["kind"] in ("StorageClass", "VolumeAttributesClass"):
        yield one.get("parameters", {})
    if one["kind"] == "PersistentVolume":
        yield one["spec"]["csi"]["volumeAttributes"]
    for volume in (pod_of(one) or {}).get("volumes", []):
        if "csi" in volume:
            yield volume["csi"].get("volumeAttributes", {})


def classes(one: dict):
    """Names of classes that an object asks for."""
    if one["kind"] == "VolumeSnapshot":
        yield "VolumeSnapshotClass", one["spec"]["volumeSnapshotClassName"]
    specs = [one["spec"]] if one["kind"] == "PersistentVolumeClaim" else []
    for volume in (pod_of(one) or {}).get("volumes", []):
        if "ephemeral" in volume:
            specs.append(volume["ephemeral"]["volumeClaimTemplate"]["spec"])
    for spec in specs:
        yield "StorageClass", spec["storageClassName"]
        if "volumeAttributesClassName" in spec:
            yield "VolumeAttributesClass", spec["volumeAttributesClassName"]


def sources(one: dict):
    """What an object is made of, which must be there."""
    if one["kind"] == "VolumeSnapshot":
        yield "PersistentVolumeClaim", one["spec"]["source"]["persistentVolumeClaimName"]
    if one["kind"] == "PersistentVolumeClaim" and "dataSource" in one["spec"]:
        yield one["spec"]["dataSource"]["kind"], one["spec"]["dataSource"]["name"]


problems = Problems()
paths = sorted((DEPLOY / "examples").glob("*.yaml"))
problems.check({path.stem for path in paths} == WANTED, f"the examples are {sorted(path.stem for path in paths)}")
found = {path.stem: objects(path.read_text()) for path in paths}
everything = [one for those in found.values() for one in those]
names = [identity(one) for one in everything]
problems.check(len(names) == len(set(names)), "two examples make an object of one name")
made = {(one["kind"], one["metadata"]["name"]) for one in everything + render(CLASSES)}
known = known_attributes()
problems.check({"dataset", "directory", "model", "scratch", "durability", "warm", "pin", "cold", "tierPolicy"} <= known, f"attributes: {known}")
for name, those in found.items():
    schemas.check(name, those, problems)
    for one in those:
        where = f"{name}: {identity(one)}"
        for parameters in attributes(one):
            unknown = {key for key in parameters if not key.startswith(OF_KUBERNETES)} - known
            problems.check(not unknown, f"{where}: unknown attributes {unknown}")
        for wanted in [*classes(one), *sources(one)]:
            problems.check(wanted in made | NONE, f"{where}: there is no {' '.join(wanted)}")
        pod = pod_of(one)
        if pod is None:
            continue
        text = one.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations", {}).get("terrace.io/mount", "")
        for part in filter(None, text.split(",")):
            problems.check(bool(MOUNT.match(part.strip())), f"{where}: {part}")
        claims = {claim["metadata"]["name"] for claim in those if claim["kind"] == "PersistentVolumeClaim"}
        for volume in pod.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            problems.check(claim is None or claim in claims, f"{where}: no claim {claim}")
problems.end(f"{len(paths)} examples, {len(everything)} objects")
