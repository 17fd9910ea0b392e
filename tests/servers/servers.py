#!/usr/bin/env python3
"""The real servers of the test suites: starts them in parallel, tells the tests where they are, stops them.

    servers.py prepare       fetch and build what the servers need, start nothing
    servers.py up            start what is not running; print the path of the environment file
    servers.py down          stop all of it and remove its data
    servers.py status        what runs
    servers.py exec -- CMD   run CMD with the environment set; stop the servers afterwards,
                             unless `up` started them or another `exec` still uses them

The run directory is `$TERRACE_TEST_RUN`, or `terrace-servers-<uid>` in the directory for temporary
files. Standard library only. A server that this machine cannot run is listed as
`SKIP server <name>: <reason>`; one that should run and does not is a failure.
"""

import argparse
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from checkers import Checkers
from clients import Clients
from csi import Csi
from engines import Engines
from hdfs import Hdfs
from packaging import Packaging
from postgres import Postgres
from pjdfstest import Pjdfstest
from s3 import S3
from shared import Shared
from support import Run, Unavailable
from writers import Spark, Writers

SERVERS = (S3, Hdfs, Postgres, Shared, Writers, Spark, Clients, Engines, Checkers, Packaging, Csi,
           Pjdfstest)


def run_directory() -> Path:
    """Where this user's servers keep everything."""
    named = os.environ.get("TERRACE_TEST_RUN")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"terrace-servers-{os.getuid()}"


def read_environment(run: Run) -> dict[str, str]:
    """The environment file, empty when there is none."""
    if not run.environment.exists():
        return {}
    words = (line.removeprefix("export ") for line in run.environment.read_text().splitlines())
    return {name: shlex.split(value)[0] for name, value in (word.split("=", 1) for word in words)}


def healthy(run: Run) -> bool:
    """Whether a complete set of servers runs and answers."""
    environment = read_environment(run)
    try:
        return bool(environment) and all(
            server.healthy(environment) for server in SERVERS if server.variable in environment)
    except (OSError, KeyError, ValueError):
        return False


def prepare() -> None:
    """Fetches the packages of every server. A failure shows again, and counts, in `up`."""
    for server in SERVERS:
        try:
            server.prepare()
        except Exception as why:
            print(f"servers: {server.name} is not prepared: {why}", flush=True)


def start(run: Run) -> None:
    """Starts every server, each in its own thread, and writes the environment file."""
    run.place()
    environment: dict[str, str] = {}
    failures: list[str] = []

    def one(server) -> None:
        began = time.monotonic()
        try:
            found = server(run).up()
        except Unavailable as why:
            print(f"SKIP server {server.name}: {why}", flush=True)
            return
        except Exception as error:  # Reported below, after the others have ended too.
            failures.append(f"{server.name}: {error}")
            return
        environment.update(found)
        print(f"server {server.name}: up after {time.monotonic() - began:.1f} s", flush=True)

    threads = [threading.Thread(target=one, args=(server,)) for server in SERVERS]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:  # A signal: nothing may be started after `take_down` has read the log.
        run.closing = True
        for thread in threads:
            thread.join()
        raise
    if failures:
        run.take_down()
        sys.exit("servers: " + "\n".join(failures))
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(environment.items()))
    temporary = run.environment.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(run.environment)


def ensure(run: Run) -> bool:
    """Makes sure that the servers run; whether this call started them."""
    if healthy(run):
        return False
    if run.directory.exists():
        run.take_down()
    start(run)
    return True


class Gate:
    """Two locks beside the run directory: one for starting and stopping, one that every user shares."""

    def __init__(self, run: Run):
        self.change = open(f"{run.directory}.lock", "a")
        self.users = open(f"{run.directory}.users", "a")

    def __enter__(self):
        fcntl.flock(self.change, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_):
        fcntl.flock(self.change, fcntl.LOCK_UN)

    def enter_as_user(self) -> None:
        fcntl.flock(self.users, fcntl.LOCK_SH)

    def leave_as_last_user(self) -> bool:
        """Whether nobody else uses the servers."""
        fcntl.flock(self.users, fcntl.LOCK_UN)
        try:
            fcntl.flock(self.users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def execute(run: Run, command: list[str]) -> int:
    """Runs a command with the servers up; its exit status."""
    gate = Gate(run)
    kept = run.directory / "kept"
    child: subprocess.Popen | None = None

    def forward(sign, _frame):
        if child is None:
            raise SystemExit(128 + sign)
        child.send_signal(sign)

    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, forward)
    try:
        with gate:
            gate.enter_as_user()
            ensure(run)
        child = subprocess.Popen(command, env=dict(os.environ, **read_environment(run)))
        status = child.wait()
        return status if status >= 0 else 128 - status
    finally:
        with gate:
            if gate.leave_as_last_user() and not kept.exists():
                run.take_down()


def main() -> int:
    parser = argparse.ArgumentParser(description="the real servers of the test suites")
    parser.add_argument("action", choices=("prepare", "up", "down", "status", "exec"))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.action == "prepare":
        prepare()
        return 0
    run = Run(run_directory())
    if arguments.action == "exec":
        command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
        return execute(run, command) if command else parser.error("exec needs a command")
    with Gate(run):
        if arguments.action == "up":
            ensure(run)
            (run.directory / "kept").touch()
            print(run.environment)
        elif arguments.action == "down":
            run.take_down()
        else:
            print("up" if healthy(run) else "down")
            for name, value in sorted(read_environment(run).items()):
                print(f"  {name}={'***' if 'SECRET' in name else value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
