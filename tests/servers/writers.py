"""Writers that nobody here wrote: pyarrow, DuckDB, deltalake and PyIceberg in a virtual environment.

No process: the tests run the environment's Python themselves, with `catalog/tests/discovery/writers.py`.
"""

import sys
from pathlib import Path

from support import HERE, Run, built_tool, run


def build(directory: Path) -> None:
    """A virtual environment with the pinned packages."""
    run([sys.executable, "-m", "venv", str(directory)], timeout=120)
    run([str(directory / "bin" / "pip"), "install", "-q", "-r", str(HERE / "writers" / "requirements.txt")],
        timeout=900)


class Writers:
    """The environment, in place of a server."""

    name = "writers"
    variable = "TERRACE_TEST_WRITERS"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The environment's Python."""
        return built_tool("writers", [HERE / "writers" / "requirements.txt"], build) / "bin" / "python"

    def up(self) -> dict[str, str]:
        return {self.variable: str(self.prepare())}

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        """Whether the program is still there."""
        return Path(environment[Writers.variable]).exists()
