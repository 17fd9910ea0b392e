"""The containers beside the drivers, compiled from their sources: those that the chart names, of its versions.

    provisioner, resizer         from the Go module proxy (`sidecars/go.mod`)
    registrar, livenessprobe     from checkouts, because they are published as no module: their paths lack the
                                 major version. Only until they are kept.
"""

import re
import subprocess
from pathlib import Path

import yaml

from images import DEPLOY, of_program
from world import HERE, compiled, tools

MODULES = {"provisioner": ("csi-provisioner", "github.com/kubernetes-csi/external-provisioner"),
           "resizer": ("csi-resizer", "github.com/kubernetes-csi/external-resizer")}
CHECKOUTS = {"registrar": ("csi-node-driver-registrar", "node-driver-registrar"),
             "livenessProbe": ("livenessprobe", "livenessprobe")}


def named() -> dict[str, str]:
    """The chart's sidecars: names of their images."""
    values = yaml.safe_load((DEPLOY / "helm" / "terrace" / "values.yaml").read_text())
    return {key: sidecar["image"] for key, sidecar in values["sidecars"].items()}


def images(place: Path, sources: Path | None) -> list[Path]:
    """An archive of each, under the name that the chart's values have."""
    found = []
    for key, image in named().items():
        archive = place / f"{key}.tar"
        of_program(archive, place, image, program(key, image, sources))
        found.append(archive)
    return found


def program(key: str, image: str, sources: Path | None) -> Path:
    """The program of an image, compiled when it is not kept."""
    version = image.rpartition(":")[2]
    name = (MODULES.get(key) or CHECKOUTS[key])[0]
    kept = tools() / f"{name}-{version}" / name
    if kept.exists():
        return kept
    print(f"{name} {version} is compiled, once", flush=True)
    if key in MODULES:
        path = f"{MODULES[key][1]}/{version.partition('.')[0]}"
        wanted = re.search(rf"^\s*{re.escape(path)} (\S+)$", (HERE / "sidecars" / "go.mod").read_text(), re.MULTILINE)
        assert wanted and wanted[1] == version, f"the chart runs {name} {version}, sidecars/go.mod has another one"
        compiled(kept, HERE / "sidecars", f"{path}/cmd/{name}", CGO_ENABLED="0")
        return kept
    repository = CHECKOUTS[key][1]
    assert sources, f"name with --sources a directory with the checkout {repository} of the tag {version}"
    tag = subprocess.run(["git", "-C", str(sources / repository), "describe", "--tags", "--exact-match"],
                         capture_output=True, text=True).stdout.strip()
    assert tag == version, f"{sources / repository} is at {tag or 'no tag'}, the chart runs {version}"
    compiled(kept, sources / repository, f"./cmd/{name}", f"-s -w -X main.version={version}", GOFLAGS="-mod=vendor", CGO_ENABLED="0")
    return kept
