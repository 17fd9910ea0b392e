"""Writers that nobody here wrote, in virtual environments: pyarrow, DuckDB, deltalake and PyIceberg in one,
Spark with its JVM in another.

No process: the tests run the environments' Python themselves, with the scripts beside them
(`catalog/tests/discovery/writers.py`, `catalog/tests/discovery/spark.py`).
"""

import sys
from pathlib import Path

from support import HERE, Run, built_tool, need_program, run


class Writers:
    """The environment, in place of a server."""

    name = "writers"
    variable = "TERRACE_TEST_WRITERS"
    packages = HERE / "writers" / "requirements.txt"

    def __init__(self, runs: Run):
        self.run = runs

    @classmethod
    def prepare(cls) -> Path:
        """The environment's Python."""
        return built_tool(cls.name, [cls.packages], cls.build) / "bin" / "python"

    @classmethod
    def build(cls, directory: Path) -> None:
        """A virtual environment with the pinned packages."""
        run([sys.executable, "-m", "venv", str(directory)], timeout=600)
        run([str(directory / "bin" / "pip"), "install", "-q", "-r", str(cls.packages)], timeout=1800)

    def up(self) -> dict[str, str]:
        return {self.variable: str(self.prepare())}

    @classmethod
    def healthy(cls, environment: dict[str, str]) -> bool:
        """Whether the program is still there."""
        return Path(environment[cls.variable]).exists()


class Spark(Writers):
    """PySpark; it brings Spark itself and needs a Java."""

    name = "spark"
    variable = "TERRACE_TEST_SPARK"
    packages = HERE / "writers" / "spark.txt"

    @classmethod
    def prepare(cls) -> Path:
        need_program("java")
        return super().prepare()
