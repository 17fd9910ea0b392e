#!/usr/bin/env python3
"""The demonstration: a store with sample data, a mount of it, and how fast it reads.

    make demo                        stays up until Ctrl-C
    make demo DEMO_ARGS=--once       ends by itself

Starts a real S3 server on this machine, puts a Hive-partitioned Parquet table and a folder of images
into it, mounts the bucket with Terrace, and reads: cold (from the store), warm (from the local disk),
hot (from memory), each beside the same files in a native directory on the same disk. Everything is
removed at the end.
"""

import argparse
import signal
import subprocess
import sys
import threading
from pathlib import Path

from measure import drop_page_cache, files_below, list_all, paired, read_all, same_bytes, timed
from session import BUCKET, Session, python_with_pyarrow, say

ROUNDS = 5
QUERY = """
import sys, pyarrow.dataset as ds
table = ds.dataset(sys.argv[1], partitioning="hive").to_table(
    columns=["price"], filter=(ds.field("dt") == "2026-11-20") & (ds.field("country") == "de"))
print(f"{table.num_rows} rows of one partition, mean price {sum(table['price'].to_pylist()) / table.num_rows:.2f}")
"""


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
    suites = [("clicks", "table", "MB/s", False), ("images", "images, shuffled", "files/s", True)]
    say(f"\n{'':<34}{'cold (store)':>19}{'warm (disk)':>37}{'hot (memory)':>37}")
    for directory, name, unit, shuffled in suites:
        ours, theirs = files_below(mount / directory), files_below(native / directory)
        size = sum(path.stat().st_size for path in theirs)
        work = size / 1e6 if unit == "MB/s" else len(theirs)
        cold = timed(lambda: read_all(ours, shuffled))
        both = (lambda: read_all(ours, shuffled), lambda: read_all(theirs, shuffled))
        for read in both:
            read()
        warm = paired(*both, rounds=3, before=drop_page_cache) if drop_page_cache() else "needs root"
        for read in both:
            read()
        row(f"{name}, {len(theirs)} files, {size / 1e6:.0f} MB", work, unit, cold, warm, paired(*both, rounds=ROUNDS))
    entries = list_all(mount)
    hot = paired(lambda: list_all(mount), lambda: list_all(native), rounds=ROUNDS)
    row(f"listing and stat, {entries} entries", entries, "files/s", None, "", hot)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="end after the measurements")
    parser.add_argument("--images", type=int, default=2000, help="images in the sample")
    arguments = parser.parse_args()

    say("starting an S3 server (SeaweedFS) on the loopback address ...")
    with Session("demo") as session:
        say("making the sample data ...")
        native = session.sample(arguments.images)
        count = session.upload(native)
        say(f"{count} objects are in s3://{BUCKET}/sample at {session.environment['AWS_ENDPOINT_URL']}")

        mount = session.mount()
        say(f"\n$ terrace mount s3://{BUCKET}/sample {mount} --hot {session.directory / 'hot'}")
        for path in ("", "clicks", "clicks/dt=2026-11-20"):
            names = " ".join(sorted(entry.name for entry in (mount / path).iterdir()))
            say(f"$ ls {mount / path}\n{names}")
        compare(mount, native)
        say("")
        say("$ python -c 'pyarrow.dataset.dataset(...)'  # no SDK: a path")
        asked = subprocess.run([str(python_with_pyarrow()), "-c", QUERY, str(mount / "clicks")],
                               text=True, capture_output=True, check=False)
        if asked.returncode != 0:
            sys.exit(f"pyarrow could not read the mount: {asked.stderr[-500:]}")
        say(asked.stdout.strip())
        say(f"\nevery byte compared: {same_bytes(mount, native)} files are the same\n")
        say("$ terrace status")
        say(session.command("status").rstrip())
        if arguments.once:
            return
        say(f"\nThe mount stays at {mount} until Ctrl-C. Commands for it need"
            f"\n  --run-dir {session.sockets}   (terrace is {session.terrace})")
        stopped = threading.Event()
        signal.signal(signal.SIGINT, lambda *_: stopped.set())
        stopped.wait()
        say("\ncleaning up ...")


if __name__ == "__main__":
    main()
