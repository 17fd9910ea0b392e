#!/usr/bin/env python3
"""`terrace bench` on a quiet disk: native directory and hot tier on one ext4 image in memory.

    make bench BENCH_ARGS="--rounds 7 --only seq-warm,small-hot"

Shared disks are noisy; a loop device on memory is not, and is the same for both sides. Needs root.
What is not listed here is passed on to `terrace bench`.
"""

import argparse
import os
import sys
from pathlib import Path

from measure import files_below, read_all
from session import Session, say

BIG_BYTES = 1 << 30
SMALL_BYTES = 110_000


def sample(directory: Path, arguments: argparse.Namespace) -> None:
    """One large file, small files as image folders have them, and a tree of many entries."""
    directory.mkdir()
    with open(directory / "weights.bin", "wb") as big:
        for _ in range(BIG_BYTES >> 24):
            big.write(os.urandom(1 << 24))
    noise = os.urandom(SMALL_BYTES + 4096)
    for number in range(arguments.files):
        folder = directory / "images" / f"class-{number % 100:03}"
        folder.mkdir(parents=True, exist_ok=True)
        skip = number % 4096
        (folder / f"{number:06}.jpg").write_bytes(noise[skip:skip + SMALL_BYTES])
    for number in range(arguments.entries):
        folder = directory / "tree" / f"{number // 1000:04}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:07}").touch()


def forget_what_was_written() -> None:
    """Drops the page cache. What was just written lies there in large pieces, on either side, and is
    read a fifth faster than what came from a disk, as a data set does; the bench reads all of it once
    before it measures."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=8000, help="small files of 110 kB")
    parser.add_argument("--entries", type=int, default=0, help="empty files, for the listing suite")
    parser.add_argument("--profile", default="default", help="profile of the mount")
    parser.add_argument("--snapshot", action="store_true", help="mount a snapshot")
    arguments, passed_on = parser.parse_known_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root for the loop device and to drop the page cache")

    with Session("bench") as session:
        disk = session.quiet_disk()
        say("making the sample data ...")
        native = disk / "native"
        sample(native, arguments)
        options = ["--profile", arguments.profile, *(["--snapshot"] if arguments.snapshot else [])]
        mount = session.mount(*options, hot=disk / "hot", source=f"file://{native}")
        say("filling the hot tier ...")
        session.command("warm", str(mount), "--wait", timeout=600)
        read_all([path for path in files_below(mount) if path.stat().st_size > 0], shuffled=False)
        forget_what_was_written()
        say(session.command("bench", str(mount), "--against", str(native), *passed_on, timeout=3600).rstrip())


if __name__ == "__main__":
    main()
