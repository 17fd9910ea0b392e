"""One session with Terrace on this machine: a store, sample data, a catalog, mounts; cleaned up at the end.

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
IMAGE_BYTES = 6 << 30
MEMORY = Path("/dev/shm")
REQUIREMENTS = REPOSITORY / "deploy" / "demo" / "requirements.txt"


def demo_python() -> Path:
    """The interpreter of a virtual environment with what the sample data and the query need."""

    def build(directory: Path) -> None:
        run([sys.executable, "-m", "venv", str(directory)], timeout=600)
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
        self.catalog: subprocess.Popen | None = None
        self.console = self.token = ""

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

    def python(self, *arguments: str) -> str:
        """Runs Python with what the demonstration needs; what it printed."""
        return run([str(demo_python()), *arguments], timeout=600)

    def sample(self, *options: str) -> Path:
        """Makes the sample data on the disk; its directory."""
        data = self.directory / "native"
        self.python(str(REPOSITORY / "deploy" / "demo" / "sample.py"), str(data), *options)
        return data

    def upload(self, data: Path, prefix: str) -> int:
        """Puts a tree into the bucket; how many objects."""
        return S3Client(self.environment).put_tree(BUCKET, prefix, data)

    def mark(self, prefix: str) -> None:
        """Says that what was written below a prefix is complete, as sync systems do."""
        S3Client(self.environment).put(BUCKET, f"{prefix}/_SUCCESS", b"")

    def command(self, *arguments: str, timeout: float = 120) -> str:
        """Runs `terrace ...`; what it printed. Ends the session when it fails."""
        done = subprocess.run([self.terrace, "--run-dir", self.sockets, "--log", "warn", *arguments],
                              env=self.environment, text=True, capture_output=True, timeout=timeout)
        if done.returncode != 0:
            sys.exit(f"terrace {' '.join(arguments)}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def up(self) -> Path:
        """Starts `terrace up`; where it mounts all tables."""
        mountpoint = self.mountpoint()
        words = ["up", "--data", self.directory / "catalog", "--hot", self.directory / "hot",
                 "--mount", mountpoint, "--listen", "127.0.0.1:0"]
        with open(self.directory / "up.log", "wb") as log:
            self.catalog = subprocess.Popen(
                [self.terrace, "--run-dir", self.sockets, "--log", "warn", *map(str, words)], text=True,
                env=self.environment, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        said = {}
        for line in self.catalog.stdout:
            name, _, value = line.strip().partition(" ")
            said[name] = value.strip()
            if name == "end":
                self.console, self.token = said["catalog"], said["token"]
                return mountpoint
        sys.exit(f"terrace up: {(self.directory / 'up.log').read_text().strip()}")

    def quiet_disk(self) -> Path:
        """Mounts an ext4 image that lies in memory; undone with the session's servers. Needs root."""
        image = MEMORY / self.directory.name
        with open(image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        self.run.record(kind="file", path=str(image))
        run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)])
        device = run(["losetup", "--find", "--show", str(image)]).strip()
        self.run.record(kind="loop", device=device, file=str(image))
        mountpoint = self.run.place("disk")
        self.run.record(kind="mount", path=str(mountpoint))
        run(["mount", "-o", "noatime", device, str(mountpoint)])
        return mountpoint

    def mountpoint(self) -> Path:
        """A directory to mount on."""
        mountpoint = self.directory / f"mount-{len(self.mounts)}"
        mountpoint.mkdir()
        self.mounts.append(mountpoint)
        return mountpoint

    def mount(self, *options: str, hot: Path | None = None, source: str = f"s3://{BUCKET}/sample") -> Path:
        """Mounts the sample data, or another source; the mount point."""
        mountpoint = self.mountpoint()
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
        if self.catalog is not None:
            self.catalog.terminate()
            try:
                self.catalog.wait(60)
            except subprocess.TimeoutExpired:
                self.catalog.kill()
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
