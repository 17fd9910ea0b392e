"""Programs nobody here wrote that read a mount: a Python with the pinned packages of `clients.txt`."""

import sys
from pathlib import Path

from support import HERE, Run, built_tool, run

PACKAGES = HERE / "clients.txt"


def build(directory: Path) -> None:
    """A virtual environment with the pinned packages."""
    run([sys.executable, "-m", "venv", str(directory)], timeout=120)
    run([str(directory / "bin" / "pip"), "install", "-q", "-r", str(PACKAGES)], timeout=600)


class Clients:
    """No process: tests start the interpreter themselves."""

    name = "clients"
    variable = "TERRACE_TEST_PYTHON"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The interpreter."""
        return built_tool("clients", [PACKAGES], build) / "bin" / "python"

    def up(self) -> dict[str, str]:
        return {self.variable: str(self.prepare())}

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        return Path(environment[Clients.variable]).exists()
