"""SQL engines nobody here wrote: PyIceberg, Polars and DuckDB in a virtual environment.

No process: the tests run the environment's Python themselves, with `tests/catalog/engines.py`. DuckDB's
extensions come as packages too, so nothing is fetched when they are loaded.
"""

import sys
from pathlib import Path

from support import HERE, Run, built_tool, run

PACKAGES = HERE / "engines" / "requirements.txt"


def build(directory: Path) -> None:
    """A virtual environment with the pinned packages."""
    run([sys.executable, "-m", "venv", str(directory)], timeout=120)
    run([str(directory / "bin" / "pip"), "install", "-q", "-r", str(PACKAGES)], timeout=900)


class Engines:
    """The environment, in place of a server."""

    name = "engines"
    variable = "TERRACE_TEST_ENGINES"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The environment's Python."""
        return built_tool("engines", [PACKAGES], build) / "bin" / "python"

    def up(self) -> dict[str, str]:
        return {self.variable: str(self.prepare())}

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        """Whether the program is still there."""
        return Path(environment[Engines.variable]).exists()
