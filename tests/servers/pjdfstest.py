"""The POSIX test suite nobody here wrote: `pjdfstest`, in Rust, built from the crates registry at the
version that `pjdfstest.txt` pins. Tests run it on a mount and on the directory below for comparison."""

from pathlib import Path

from support import HERE, Run, built_tool, need_program, run

PACKAGES = HERE / "pjdfstest.txt"

# A build of some 100 crates on a slow machine.
BUILD_SECONDS = 1800


def build(directory: Path) -> None:
    """Builds every program that is pinned."""
    need_program("cargo")
    for line in PACKAGES.read_text().splitlines():
        name, version = line.split()
        command = ["cargo", "install", "--locked", "--root", str(directory)]
        target = ["--target-dir", str(directory / "build")]
        run([*command, *target, f"{name}@{version}"], timeout=BUILD_SECONDS)


class Pjdfstest:
    """No process: tests start the program themselves."""

    name = "pjdfstest"
    variable = "TERRACE_TEST_PJDFSTEST"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The program."""
        return built_tool("pjdfstest", [PACKAGES], build) / "bin" / "pjdfstest"

    def up(self) -> dict[str, str]:
        return {self.variable: str(self.prepare())}

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        return Path(environment[Pjdfstest.variable]).exists()
