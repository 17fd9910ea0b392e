"""What judges the CSI drivers and nobody here wrote: `csi-sanity`, and the published interface itself, both
built from the Go modules that `csi/go.mod` pins."""

from pathlib import Path

from support import HERE, Run, built_tool, need_program, run

MODULE = HERE / "csi"
INPUTS = [MODULE / name for name in ("go.mod", "go.sum", "main.go")]


def build(directory: Path) -> None:
    """Both programs. The modules come through Go's own client and its checksums."""
    sanity = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
    for name, package in (("csi-descriptor", "."), ("csi-sanity", sanity)):
        run(["go", "build", "-trimpath", "-o", str(directory / name), package], timeout=900, cwd=MODULE)


class Csi:
    """No process: tests start the programs themselves."""

    name = "csi"
    variable = "TERRACE_TEST_CSI"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The directory of the programs."""
        need_program("go")
        return built_tool("csi", INPUTS, build)

    def up(self) -> dict[str, str]:
        return {self.variable: str(self.prepare())}

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        return (Path(environment[Csi.variable]) / "csi-sanity").exists()
