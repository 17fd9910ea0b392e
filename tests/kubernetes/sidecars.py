"""The containers beside the drivers: those that the chart names, of its versions.

    provisioner, resizer, snapshotter   compiled from the Go module proxy (`sidecars/go.mod`)
    registrar, livenessprobe            programs that the caller has, because they are published as no module (their
                                        paths lack the major version); each must say, or have been built with
                                        `-X main.version=`, the chart's version

Beside them the snapshot-controller, which a cluster has once for all drivers: of the snapshotter's module and version.
"""

import json
import re
import subprocess
from pathlib import Path

import yaml

from images import DEPLOY, of_program
from world import HERE, compiled, tools

MODULES = {"provisioner": ("csi-provisioner", "github.com/kubernetes-csi/external-provisioner"),
           "resizer": ("csi-resizer", "github.com/kubernetes-csi/external-resizer"),
           "snapshotter": ("csi-snapshotter", "github.com/kubernetes-csi/external-snapshotter")}
# What the clients of snapshots are made of; its files have the definitions of the resources.
CLIENTS = "github.com/kubernetes-csi/external-snapshotter/client/v8"
PROGRAMS = {"registrar": "csi-node-driver-registrar", "livenessProbe": "livenessprobe"}


def named() -> dict[str, str]:
    """The chart's sidecars: names of their images."""
    values = yaml.safe_load((DEPLOY / "helm" / "terrace" / "values.yaml").read_text())
    return {key: sidecar["image"] for key, sidecar in values["sidecars"].items()}


def images(place: Path, programs: Path | None) -> list[Path]:
    """An archive of each, under the name that the chart's values have."""
    found = []
    for key, image in named().items():
        archive = place / f"{key}.tar"
        of_program(archive, place, image, program(key, image, programs))
        found.append(archive)
    return found


def program(key: str, image: str, programs: Path | None) -> Path:
    """The program of an image, compiled or found."""
    version = image.rpartition(":")[2]
    if key in PROGRAMS:
        return given(PROGRAMS[key], version, programs)
    return of_module(*MODULES[key], version)


def snapshot_controller() -> Path:
    """The program that makes contents of snapshots, of the version that the chart's snapshotter has."""
    return of_module("snapshot-controller", MODULES["snapshotter"][1], named()["snapshotter"].rpartition(":")[2])


def definitions() -> list[Path]:
    """The definitions of VolumeSnapshots, their classes and contents, as their authors publish them."""
    done = subprocess.run(["go", "mod", "download", "-json", CLIENTS], cwd=HERE / "sidecars", capture_output=True, text=True)
    assert done.returncode == 0, f"{CLIENTS}: {done.stdout} {done.stderr}"
    found = sorted(Path(json.loads(done.stdout)["Dir"], "config", "crd").glob("snapshot.storage.k8s.io_*.yaml"))
    assert len(found) == 3, found
    return found


def of_module(name: str, module: str, version: str) -> Path:
    """A program of a published module, compiled when it is not there."""
    kept = tools() / f"{name}-{version}" / name
    if kept.exists():
        return kept
    print(f"{name} {version} is compiled, once", flush=True)
    path = f"{module}/{version.partition('.')[0]}"
    wanted = re.search(rf"^\s*{re.escape(path)} (\S+)(?: // indirect)?$", (HERE / "sidecars" / "go.mod").read_text(), re.MULTILINE)
    assert wanted and wanted[1] == version, f"the chart runs {name} {version}, sidecars/go.mod has another one"
    compiled(kept, HERE / "sidecars", f"{path}/cmd/{name}", CGO_ENABLED="0")
    return kept


def given(name: str, version: str, programs: Path | None) -> Path:
    """A program of the caller's, of that version: it says so itself, or was built so (livenessprobe has no such flag)."""
    assert programs, f"name with --programs a directory that has {name} {version}"
    found = programs / name
    asked = [subprocess.run(words, capture_output=True, text=True) for words in ([found, "--version"], ["go", "version", "-m", found])]
    said = "".join(done.stdout + done.stderr for done in asked)
    assert re.search(rf"(^|[\s=]){re.escape(version)}($|[\s\"])", said, re.MULTILINE), f"{found} does not say that it is {version}"
    return found
