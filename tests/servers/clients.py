"""Programs nobody here wrote that read a mount: a Python with the pinned packages of `clients.txt`."""

import sys
from collections.abc import Callable
from pathlib import Path

from support import HERE, Run, built_tool, run

PACKAGES = HERE / "clients.txt"


def environment_of(packages: Path) -> Callable[[Path], None]:
    """What builds a virtual environment with the packages that a file pins."""
    def build(directory: Path) -> None:
        run([sys.executable, "-m", "venv", str(directory)], timeout=120)
        run([str(directory / "bin" / "pip"), "install", "-q", "-r", str(packages)], timeout=900)
    return build


class Clients:
    """No process: tests start the interpreter themselves."""

    name = "clients"
    variable = "TERRACE_TEST_PYTHON"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The interpreter."""
        return built_tool("clients", [PACKAGES], environment_of(PACKAGES)) / "bin" / "python"

    def up(self) -> dict[str, str]:
        return {self.variable: str(self.prepare())}

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        return Path(environment[Clients.variable]).exists()
