"""What every server of the test suites needs: a run directory, an undo log, ports, waiting, tools.

A run directory holds everything that a set of servers writes:

    RUN/undo.jsonl     one line per thing that must be undone, written before the thing is used
    RUN/env            the environment for the tests, as `export NAME='value'` lines
    RUN/<server>/      data and configuration of one server
    RUN/log/           output of every process

`undo.jsonl` is what makes `down` right after any failure: lines are undone last first. A process is
named by its id and its start time, so that an id that the kernel has given to somebody else since
is left alone.
"""

import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The data is thrown away, so nobody needs a graceful end (SeaweedFS takes more than 10 s for one).
SIGKILL_AFTER = 2.0


class Unavailable(Exception):
    """This machine cannot run the server: a tool or a privilege is missing. Not a failure."""


def cache_directory() -> Path:
    """Where built tools are kept: `$XDG_CACHE_HOME/terrace/tools`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "terrace" / "tools"


def built_tool(name: str, inputs: list[Path], build) -> Path:
    """The directory of a tool built by `build(directory)`, cached by the content of `inputs`.

    It is built in place (a virtual environment cannot be moved) and marked when done; a build that
    was interrupted is thrown away by the next one. One build at a time across processes.
    """
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in inputs)).hexdigest()[:12]
    directory = cache_directory() / f"{name}-{digest}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{directory}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / ".done").exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            build(directory)
            (directory / ".done").touch()
    return directory


def need_program(*names: str) -> None:
    """Raises `Unavailable` when a program is not on the path."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise Unavailable(f"{', '.join(missing)} not found")


def need_root() -> None:
    """Raises `Unavailable` for a user who may not mount."""
    if os.geteuid() != 0:
        raise Unavailable("needs root (it mounts a file system)")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address nobody listens on.

    Taken below the range of outgoing connections (32768 and up), so that no client of the suites
    takes one between this call and the server's bind.
    """
    ports, held = [], []
    while len(ports) < count:
        candidate = random.randrange(20000, 32000)
        probe = socket.socket()
        try:
            probe.bind(("127.0.0.1", candidate))
        except OSError:
            probe.close()
            continue
        ports.append(candidate)
        held.append(probe)
    for probe in held:
        probe.close()
    return ports


def start_time(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot; None for none or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def run(argv: list[str], timeout: float = 60, **options) -> str:
    """Runs a command to its end; its output. A failure carries what the command said."""
    done = subprocess.run(argv, timeout=timeout, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit status {done.returncode}: {done.stdout.strip()[-2000:]}")
    return done.stdout


class Run:
    """One run directory and everything that was started in it."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.undo = directory / "undo.jsonl"
        self.environment = directory / "env"
        self.lock = threading.Lock()
        self.closing = False

    def place(self, *parts: str) -> Path:
        """A directory below the run directory, made when absent."""
        path = self.directory.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def record(self, **line) -> None:
        """Notes a thing that `down` has to undo."""
        if self.closing:
            raise RuntimeError("interrupted")
        with self.lock:
            self.write(**line)

    def write(self, **line) -> None:
        with open(self.undo, "a") as log:
            log.write(json.dumps(line) + "\n")

    def spawn(self, name: str, argv: list[str], **options) -> subprocess.Popen:
        """Starts a background process in a session of its own, its output in `log/NAME.log`."""
        if self.closing:
            raise RuntimeError("interrupted")
        with open(self.place("log") / f"{name}.log", "ab") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True, **options)
        with self.lock:
            self.write(kind="process", pid=process.pid, start=start_time(process.pid), name=name)
        return process

    def wait(self, name: str, process: subprocess.Popen, seconds: float, answers) -> None:
        """Waits until `answers()` is true. Fails at once when the process ends, with its last words."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if answers():
                    return
            except OSError:
                pass
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with status {process.returncode}\n{self.tail(name)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not answer within {seconds:.0f} s\n{self.tail(name)}")
            if self.closing:
                raise RuntimeError("interrupted")
            time.sleep(0.1)

    def tail(self, name: str) -> str:
        """The last lines a process wrote."""
        path = self.directory / "log" / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(f"  {line}" for line in lines[-15:])

    def take_down(self) -> None:
        """Undoes everything that was recorded, last first, and removes the directory."""
        lines = self.undo.read_text().splitlines() if self.undo.exists() else []
        processes = []
        for line in reversed([json.loads(line) for line in lines if line.endswith("}")]):
            if line["kind"] == "process":
                processes.append(line)
            else:
                stop(processes)
                processes = []
                UNDO[line["kind"]](line)
        stop(processes)
        if not any_mount_below(self.directory):
            shutil.rmtree(self.directory, ignore_errors=True)


def stop(processes: list[dict]) -> None:
    """Ends processes that are still the ones recorded: TERM to all of them, KILL after a while."""
    alive = [p for p in processes if p["start"] is not None and start_time(p["pid"]) == p["start"]]
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in alive:
            try:
                os.kill(process["pid"], sign)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + SIGKILL_AFTER
        while alive and time.monotonic() < deadline:
            alive = [p for p in alive if start_time(p["pid"]) == p["start"]]
            time.sleep(0.05)
        if not alive:
            return


def any_mount_below(directory: Path) -> bool:
    """Whether something is still mounted below; then removing would delete what is mounted."""
    prefix = str(directory) + "/"
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4].startswith(prefix) for line in mounts)


def undo_mount(line: dict) -> None:
    if subprocess.run(["umount", line["path"]], stderr=subprocess.DEVNULL).returncode != 0:
        subprocess.run(["umount", "-l", line["path"]], stderr=subprocess.DEVNULL)


def undo_loop(line: dict) -> None:
    backing = Path(f"/sys/block/{Path(line['device']).name}/loop/backing_file")
    if backing.exists() and backing.read_text().strip().startswith(line["file"]):
        subprocess.run(["losetup", "-d", line["device"]], stderr=subprocess.DEVNULL)


def undo_namespace(line: dict) -> None:
    """Ends what runs in a network namespace we made (its processes are ours) and removes it."""
    listed = subprocess.run(["ip", "netns", "pids", line["name"]], text=True, capture_output=True)
    stop([{"pid": int(pid), "start": start_time(int(pid))} for pid in listed.stdout.split()])
    subprocess.run(["ip", "netns", "del", line["name"]], stderr=subprocess.DEVNULL)


def undo_file(line: dict) -> None:
    Path(line["path"]).unlink(missing_ok=True)


UNDO = {"mount": undo_mount, "loop": undo_loop, "namespace": undo_namespace, "file": undo_file}
