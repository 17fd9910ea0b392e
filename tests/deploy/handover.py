"""What upgrades of pods and units rest on, with processes: keepers in mount namespaces of their own, as in pods
with Bidirectional propagation, hand a mount over while it is read, and the last one's processes go.

    surge     the next pod's keeper takes over; the last one ends with 0; its namespace goes
    reload    the unit's ExecReload, then the start after the first process's end with 0
    crash     a keeper below a guard is killed: the worker stays, the next keeper adopts it, the container goes on
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from common import Problems, run

BINARY = os.environ["TERRACE_BINARY"]
LACKING = 77
LIMIT = 60
SEED = 0x22


class Reader(threading.Thread):
    """Reads one file through the mount again and again until it is told to end."""

    def __init__(self, file: Path, digest: str):
        super().__init__(daemon=True)
        self.file, self.digest = file, digest
        self.ending = threading.Event()
        self.rounds = 0
        self.wrong: list[str] = []
        self.moved = threading.Condition()

    def run(self):
        with open(self.file, "rb", buffering=0) as held:
            while not self.ending.is_set() and not self.wrong:
                try:
                    self.compare("a fresh open", self.file.read_bytes())
                    held.seek(0)
                    self.compare("an open file", b"".join(iter(lambda: held.read(1 << 20), b"")))
                except OSError as error:
                    self.wrong.append(str(error))
                with self.moved:
                    self.rounds += 1
                    self.moved.notify_all()

    def compare(self, what: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != self.digest:
            self.wrong.append(f"{what} has other bytes")

    def some_more(self) -> bool:
        """Whether it gets through two more rounds; one may have begun before."""
        with self.moved:
            goal = self.rounds + 2
            return self.moved.wait_for(lambda: self.rounds >= goal or self.wrong, LIMIT) and not self.wrong


class Node:
    """One host: a directory that is shared with pods, a source, and keepers."""

    def __init__(self, scratch: Path):
        self.hot, self.runs, self.kubelet = scratch / "hot", scratch / "run", scratch / "kubelet"
        self.source, self.keepers = scratch / "source", []
        for directory in (self.hot, self.runs, self.kubelet, self.source):
            directory.mkdir()
        data = random.Random(SEED).randbytes(9 << 20)
        (self.source / "data").write_bytes(data)
        self.digest = hashlib.sha256(data).hexdigest()
        self.mountpoint = self.kubelet / "volume"
        self.mountpoint.mkdir()

    def __enter__(self):
        run(["mount", "--bind", str(self.kubelet), str(self.kubelet)]).check_returncode()
        run(["mount", "--make-shared", str(self.kubelet)]).check_returncode()
        return self

    def __exit__(self, *_):
        # SIGTERM removes the mounts and ends the worker; what stays after a failure is named by the run directory.
        for keeper in self.keepers:
            keeper.terminate()
        for keeper in self.keepers:
            try:
                keeper.wait(LIMIT)
            except subprocess.TimeoutExpired:
                keeper.kill()
                keeper.wait()
        for file in self.runs.glob("*/worker.pid"):
            pid = int(file.read_text().split()[0])
            if Path(f"/proc/{pid}/exe").exists() and os.readlink(f"/proc/{pid}/exe").startswith(BINARY):
                os.kill(pid, signal.SIGKILL)
        for directory in (self.mountpoint, self.kubelet):
            subprocess.run(["umount", "-l", str(directory)], stderr=subprocess.DEVNULL, timeout=LIMIT)

    def terrace(self, *arguments: str) -> subprocess.CompletedProcess:
        return run([BINARY, "--log=warn", f"--run-dir={self.runs}", *arguments])

    def keeper(self, log: Path, *more: str) -> subprocess.Popen:
        """A keeper with the arguments of the chart, in a mount namespace of its own."""
        with open(log, "wb") as out:
            started = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "unchanged", BINARY, "--log=info", f"--run-dir={self.runs}",
                 "keeper", f"--hot={self.hot}", "--hot-size=64MiB", "--stay", "--take-over", *more], stdout=out, stderr=out)
        self.keepers.append(started)
        return started

    def pids(self) -> tuple[int | None, int | None]:
        """Of keeper and worker, as far as they answer."""
        status = self.terrace("status", "--json").stdout
        document = json.loads(status) if status else {}
        keeper, worker = ((document.get(name) or {}).get("pid") for name in ("keeper", "worker"))
        return keeper, worker

    def until(self, is_so) -> tuple[int | None, int | None]:
        """Waits until keeper and worker are as they should be; what they are then."""
        for _ in range(LIMIT * 10):
            found = self.pids()
            if is_so(*found):
                break
            threading.Event().wait(0.1)
        return found

    def in_charge(self, pid: int) -> bool:
        """Whether this keeper is the one, waited for."""
        return self.until(lambda keeper, _: keeper == pid)[0] == pid


def play(problems: Problems, scratch: Path, name: str) -> int:
    with Node(scratch) as node:
        first = node.keeper(scratch / "first.log")
        problems.check(node.in_charge(first.pid), f"{name}: the first keeper does not come up")
        done = node.terrace("mount", node.source.as_uri(), str(node.mountpoint), f"--hot={node.hot}")
        if done.returncode != 0:
            problems.add(f"{name}: {done.stderr}")
            return 0
        reader = Reader(node.mountpoint / "data", node.digest)
        reader.start()
        problems.check(reader.some_more(), f"{name}: nothing is read: {reader.wrong}")
        if name == "reload":
            done = node.terrace("keeper", "--upgrade", f"--hot={node.hot}")
            problems.check(done.returncode == 0, f"{name}: {done.stderr}")
            problems.check(first.wait(LIMIT) == 0, f"{name}: the first keeper ends with {first.returncode}")
        second = node.keeper(scratch / "second.log")
        problems.check(node.in_charge(second.pid), f"{name}: the second keeper takes nothing over")
        problems.check(first.wait(LIMIT) == 0, f"{name}: the first keeper ends with {first.returncode}")
        problems.check(reader.some_more(), f"{name}: reading ended: {reader.wrong}")
        reader.ending.set()
        reader.join(LIMIT)
        problems.check(not reader.is_alive() and not reader.wrong, f"{name}: {reader.wrong or 'a read hangs'}")
        return reader.rounds


def crash(problems: Problems, scratch: Path) -> int:
    with Node(scratch) as node:
        guard = node.keeper(scratch / "guard.log", "--guard")
        keeper, worker = node.until(lambda keeper, worker: keeper and worker)
        problems.check(keeper not in (None, guard.pid), f"crash: no keeper below the guard: {keeper}")
        done = node.terrace("mount", node.source.as_uri(), str(node.mountpoint), f"--hot={node.hot}")
        if done.returncode != 0:
            problems.add(f"crash: {done.stderr}")
            return 0
        reader = Reader(node.mountpoint / "data", node.digest)
        reader.start()
        for _ in range(2):
            problems.check(reader.some_more(), f"crash: nothing is read: {reader.wrong}")
            os.kill(keeper, signal.SIGKILL)
            last = keeper
            keeper, now = node.until(lambda keeper, worker: worker and keeper not in (None, last))
            problems.check(keeper != last, "crash: no other keeper comes")
            problems.check(now == worker, f"crash: the worker was {worker} and is {now}")
        problems.check(reader.some_more(), f"crash: reading ended: {reader.wrong}")
        reader.ending.set()
        reader.join(LIMIT)
        problems.check(not reader.is_alive() and not reader.wrong, f"crash: {reader.wrong or 'a read hangs'}")
        problems.check(guard.poll() is None, f"crash: the guard ended with {guard.returncode}")
        guard.terminate()
        problems.check(guard.wait(LIMIT) == 0, f"crash: the guard ends with {guard.returncode}")
        problems.check(not os.path.ismount(node.mountpoint), "crash: an end in order leaves a mount")
        return reader.rounds


if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not shutil.which("unshare"):
    print("needs root, /dev/fuse and unshare", file=sys.stderr)
    sys.exit(LACKING)
problems, rounds = Problems(), 0
for name in ("surge", "reload"):
    with tempfile.TemporaryDirectory() as scratch:
        rounds += play(problems, Path(scratch), name)
with tempfile.TemporaryDirectory() as scratch:
    rounds += crash(problems, Path(scratch))
problems.end(f"keepers handed over twice and crashed twice, {rounds} rounds of reading")
