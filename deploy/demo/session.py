"""One session with Terrace on this machine: a store, sample data in it, and mounts; cleaned up at the end.

Used by the demonstration and by the benchmark. Everything lies in one directory below
`$XDG_CACHE_HOME/terrace` (a disk, where the directory for temporary files may be memory), and
Terrace's sockets in a run directory of their own, so that nothing else on the machine is touched.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "servers"))

from s3 import S3  # noqa: E402
from s3client import S3Client  # noqa: E402
from support import Run, built_tool, cache_directory, run, start_time, stop  # noqa: E402

BUCKET = "demo"
REQUIREMENTS = REPOSITORY / "deploy" / "demo" / "requirements.txt"


def python_with_pyarrow() -> Path:
    """The interpreter of a virtual environment with what the sample data needs."""

    def build(directory: Path) -> None:
        run([sys.executable, "-m", "venv", str(directory)], timeout=120)
        run([str(directory / "bin" / "pip"), "install", "-q", "-r", str(REQUIREMENTS)], timeout=600)

    return built_tool("demo", [REQUIREMENTS], build) / "bin" / "python3"


def say(text: str) -> None:
    """A line for the user, at once."""
    print(text, flush=True)


class Session:
    """A context: the store runs inside it, and nothing is left after it."""

    def __init__(self, name: str):
        base = cache_directory().parent
        base.mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
        self.run = Run(self.directory / "servers")
        self.sockets = tempfile.mkdtemp(prefix="terrace-run-")
        self.environment = dict(os.environ)
        target = os.environ.get("CARGO_TARGET_DIR") or str(base / "target")
        self.terrace = os.environ.get("TERRACE_BINARY") or f"{target}/debug/terrace"
        self.mounts: list[Path] = []

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.run.place()
        try:
            self.environment.update(S3(self.run).up())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def sample(self, images: int) -> Path:
        """Makes the sample data on the disk; its directory."""
        data = self.directory / "native"
        run([str(python_with_pyarrow()), str(REPOSITORY / "deploy" / "demo" / "sample.py"), str(data), str(images)],
            timeout=600)
        return data

    def upload(self, data: Path) -> int:
        """Puts the data into the bucket; how many objects."""
        return S3Client(self.environment).put_tree(BUCKET, "sample", data)

    def command(self, *arguments: str, timeout: float = 120) -> str:
        """Runs `terrace ...`; what it printed. Ends the session when it fails."""
        done = subprocess.run([self.terrace, "--run-dir", self.sockets, "--log", "warn", *arguments],
                              env=self.environment, text=True, capture_output=True, timeout=timeout)
        if done.returncode != 0:
            sys.exit(f"terrace {' '.join(arguments)}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def mount(self, *options: str, hot: Path | None = None, source: str = f"s3://{BUCKET}/sample") -> Path:
        """Mounts the sample data, or another source; the mount point."""
        mountpoint = self.directory / f"mount-{len(self.mounts)}"
        mountpoint.mkdir()
        self.mounts.append(mountpoint)
        hot = hot or self.directory / "hot"
        self.command("mount", source, str(mountpoint), "--hot", str(hot), *options)
        return mountpoint

    def processes(self) -> list[dict]:
        """Keeper and worker as `status` names them."""
        done = subprocess.run([self.terrace, "--run-dir", self.sockets, "status", "--json"],
                              env=self.environment, text=True, capture_output=True, timeout=30)
        try:
            status = json.loads(done.stdout)
            pids = [status[name]["pid"] for name in ("keeper", "worker")]
        except (ValueError, KeyError, TypeError):
            return []
        return [{"pid": pid, "start": start_time(pid)} for pid in pids if pid]

    def close(self) -> None:
        """Unmounts, ends every process of the session and removes its files. Safe to call twice."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        processes = self.processes() if self.mounts else []
        for mountpoint in reversed(self.mounts):
            if os.path.ismount(mountpoint):
                subprocess.run([self.terrace, "--run-dir", self.sockets, "umount", str(mountpoint)],
                               env=self.environment, timeout=60, stdout=subprocess.DEVNULL)
            if os.path.ismount(mountpoint):
                subprocess.run(["umount", "-l", str(mountpoint)], check=False)
        self.mounts.clear()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and any(start_time(p["pid"]) == p["start"] for p in processes):
            time.sleep(0.05)
        stop(processes)
        self.run.take_down()
        shutil.rmtree(self.sockets, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)
