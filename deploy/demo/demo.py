#!/usr/bin/env python3
"""The demonstration: a table that nobody registers, read by its name at the speed of the local disk.

    make demo                        stays up until Ctrl-C
    make demo DEMO_ARGS=--once       ends by itself

Starts a real S3 server and `terrace up` on this machine and watches a bucket. Then a sync system writes
a Hive-partitioned Parquet table and a folder of images there, `_SUCCESS` last: both become datasets by
themselves. They are read by name through the mount, cold (from the store), warm (from the local disk)
and hot (from memory), each beside the same files in a native directory on the same disk, and asked
with SQL. A version is tagged, and a late partition makes the next one. A checkpoint is written to a
directory volume while its worker is killed, moves to the store and comes back. Everything is removed at
the end.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from measure import drop_page_cache, files_below, list_all, paired, read_all, same_bytes, timed
from session import BUCKET, Session, say

ROUNDS = 5
LATE_DAY = "2026-11-21"
QUERY = """\
select country, count(*) as clicks, round(avg(price), 2) as mean_price
from read_parquet('{table}/*/*/*.parquet', hive_partitioning = true)
where dt = '2026-11-20' group by country order by country"""
CHECKPOINT_BYTES = 64 << 20
PYTHON = "import sys, duckdb; print(duckdb.sql(sys.argv[1]))"


def title(text: str) -> None:
    """A headline, bold on a terminal."""
    say(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


class Demo:
    """The catalog, its mount, and what has been published so far."""

    def __init__(self, session: Session):
        self.session = session
        self.mount = session.up()
        self.warehouse = f"s3://{BUCKET}/warehouse"

    def terrace(self, *words: str) -> None:
        """Shows a command and what it says."""
        say(f"$ terrace {' '.join(words)}")
        say(self.session.command(*words).rstrip())

    def version(self, name: str) -> dict:
        """The newest version of a dataset; nothing when it is not listed."""
        listed = json.loads(self.session.command("dataset", "list", "--json"))
        return next((item for item in listed if item["name"] == name and item["latest"]), {})

    def sync(self, native: Path, table: str, number: int, part: str = "") -> None:
        """Writes a table, or a part of it, as a sync system does, and waits until it is listed and in the
        mount."""
        files = files_below(native / table / part)
        size = sum(path.stat().st_size for path in files)
        self.session.upload(native / table / part, f"warehouse/{table}/{part}".rstrip("/"))
        began = time.monotonic()
        self.session.mark(f"warehouse/{table}")
        while self.version(f"demo.{table}").get("latest") != number:
            self.patience(began, f"{table} is not listed")
        listed = time.monotonic() - began
        while not (self.mount / "demo" / f"{table}@v{number}").is_dir():
            self.patience(began, f"{table} is not in the mount")
        say(f"{len(files):6,} files, {size / 1e6:4.0f} MB -> {self.warehouse}/{table}    "
            f"demo.{table} v{number} listed {listed:.1f} s after _SUCCESS, "
            f"in the mount after {time.monotonic() - began:.1f} s")

    def patience(self, began: float, what: str) -> None:
        if time.monotonic() - began > 60:
            raise SystemExit(f"{what} after a minute: {self.session.command('sync', 'list')}")
        time.sleep(0.05)

    def query(self, table: str) -> None:
        """One SQL query over a path of the mount."""
        query = QUERY.format(table=self.mount / "demo" / table)
        say(f"duckdb> {query}")
        say(self.session.python("-c", PYTHON, query).rstrip())


def rate(count: float, seconds: float, unit: str) -> str:
    return f"{count / seconds:10,.0f} {unit}"


def row(name: str, work: float, unit: str, cold: float | None, *pairs: tuple[float, float] | str) -> None:
    """One line of the table: speeds, and the share of native speed that is reached."""
    cells = [rate(work, cold, unit) if cold else ""]
    for pair in pairs:
        said = isinstance(pair, str)
        cells.append(pair if said else f"{rate(work, pair[0], unit)}  {pair[1] / pair[0]:4.2f} of native")
    say(f"{name:<34}{cells[0]:>19}{cells[1]:>37}{cells[2]:>37}")


def compare(mount: Path, native: Path) -> None:
    """Cold, warm and hot reads of both data sets, and listings."""
    suites = [("clicks", "MB/s", False), ("images", "files/s", True)]
    say(f"{'':<34}{'cold (store)':>19}{'warm (disk)':>37}{'hot (memory)':>37}")
    for table, unit, shuffled in suites:
        ours, theirs = files_below(mount / table), files_below(native / table)
        size = sum(path.stat().st_size for path in theirs)
        work = size / 1e6 if unit == "MB/s" else len(theirs)
        cold = timed(lambda: read_all(ours, shuffled))
        both = (lambda: read_all(ours, shuffled), lambda: read_all(theirs, shuffled))
        for read in both:
            read()
        warm = paired(*both, rounds=3, before=drop_page_cache) if drop_page_cache() else "needs root"
        for read in both:
            read()
        row(f"demo.{table}, {len(theirs):,} files, {size / 1e6:.0f} MB", work, unit, cold, warm,
            paired(*both, rounds=ROUNDS))
    entries = list_all(mount)
    hot = paired(lambda: list_all(mount), lambda: list_all(native), rounds=ROUNDS)
    row(f"listing and stat, {entries:,} entries", entries, "files/s", None, "", hot)


def checkpoint(demo: Demo) -> None:
    """A checkpoint in a directory volume, over the death of the worker and a trip to the cold store."""
    session = demo.session
    runs = session.directory / "runs"
    runs.mkdir()
    mount = session.mount("--rw", "--cold", f"s3://{BUCKET}/cold", source=f"file://{runs}")
    say(f"$ terrace mount file://{runs} {mount} --rw --cold s3://{BUCKET}/cold")
    path, contents = mount / "checkpoint.bin", os.urandom(CHECKPOINT_BYTES)
    worker = session.processes()[-1]["pid"]
    with open(path, "wb") as file:
        file.write(contents[:CHECKPOINT_BYTES // 2])
        os.kill(worker, signal.SIGKILL)
        file.write(contents[CHECKPOINT_BYTES // 2:])
        file.flush()
        os.fsync(file.fileno())
    if path.read_bytes() != contents:
        raise SystemExit("the checkpoint has other bytes than were written")
    say(f"worker {worker} killed while {CHECKPOINT_BYTES >> 20} MiB were written: every byte is there")
    demo.terrace("volume", "demote", str(path))
    say(f"{path.stat().st_size:,} bytes to whoever looks, {(runs / path.name).stat().st_size} on the disk below")
    began = time.monotonic()
    if path.read_bytes() != contents:
        raise SystemExit("the checkpoint has come back with other bytes")
    say(f"opened again: back from the store after {time.monotonic() - began:.2f} s, every byte the same")


def show(session: Session, arguments: argparse.Namespace) -> None:
    """The whole demonstration."""
    title("One machine: a catalog, discovery and a mount of all tables")
    demo = Demo(session)
    tables = demo.mount / "demo"
    say(f"$ terrace up --mount {demo.mount}")
    demo.terrace("sync", "add", demo.warehouse, "--namespace", "demo")

    title("A sync system writes, and calls nobody")
    native = session.sample("--rows", str(arguments.rows), "--images", str(arguments.images))
    for table in ("clicks", "images"):
        demo.sync(native, table, 1)
    demo.terrace("dataset", "list")

    title("Read by name: cold, warm and hot, beside a native directory on the same disk")
    compare(tables, native)
    say(f"every byte compared: {same_bytes(tables, native)} files are the same")

    title("SQL over the path: no SDK")
    demo.query("clicks")

    title("A version gets a name, and a late partition makes the next one")
    demo.terrace("dataset", "tag", "demo.clicks@v1", "golden")
    session.sample("--rows", str(arguments.rows), "--day", LATE_DAY)
    demo.sync(native, "clicks", 2, part=f"dt={LATE_DAY}")
    for name in ("clicks", "clicks@golden"):
        days = sorted(path.name for path in (tables / name).iterdir())
        say(f"$ ls {tables / name}\n{' '.join(days)}")
    say(f"every byte compared: {same_bytes(tables, native)} files are the same\n")

    title("A checkpoint survives the death of the worker, and a trip to the cold store")
    checkpoint(demo)
    demo.terrace("status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="end after the measurements")
    parser.add_argument("--images", type=int, default=2000, help="images in the sample")
    parser.add_argument("--rows", type=int, default=250_000, help="rows of each of the table's files")
    arguments = parser.parse_args()

    say("starting an S3 server (SeaweedFS) on the loopback address ...")
    with Session("demo") as session:
        show(session, arguments)
        title(f"Console and API  {session.console}")
        say(f"admin token      {session.token}")
        if arguments.once:
            return
        say(f"The mount stays at {session.mounts[0]} until Ctrl-C. Commands for it need"
            f"\n  --run-dir {session.sockets}   (terrace is {session.terrace})")
        stopped = threading.Event()
        signal.signal(signal.SIGINT, lambda *_: stopped.set())
        stopped.wait()
        say("\ncleaning up ...")


if __name__ == "__main__":
    main()
