"""Programs nobody here wrote that judge the HTTP interface: a Python with the pinned packages of
`checkers.txt`, which hold its document against the specification and against a running catalog."""

from pathlib import Path

from clients import environment_of
from support import HERE, Run, built_tool

PACKAGES = HERE / "checkers.txt"


class Checkers:
    """No process: tests start the programs themselves."""

    name = "checkers"
    variable = "TERRACE_TEST_CHECKERS"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The directory of the programs."""
        return built_tool("checkers", [PACKAGES], environment_of(PACKAGES)) / "bin"

    def up(self) -> dict[str, str]:
        return {self.variable: str(self.prepare())}

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        return Path(environment[Checkers.variable]).exists()
