#!/usr/bin/env python3
"""`terrace bench` on a quiet disk: native directory and hot tier on one ext4 image in memory.

    make bench BENCH_ARGS="--rounds 7 --only seq-warm,small-hot"

Shared disks are noisy; a loop device on memory is not, and is the same for both sides. Needs root.
What is not listed here is passed on to `terrace bench`.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from measure import files_below, read_all
from session import Session, say
from support import run

IMAGE_BYTES = 6 << 30
BIG_BYTES = 1 << 30
MEMORY = Path("/dev/shm")


def quiet_disk(session: Session) -> Path:
    """Mounts an ext4 image that lies in memory; undone with the session's servers."""
    image = MEMORY / session.directory.name
    with open(image, "wb") as file:
        file.truncate(IMAGE_BYTES)
    session.run.record(kind="file", path=str(image))
    run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)])
    device = run(["losetup", "--find", "--show", str(image)]).strip()
    session.run.record(kind="loop", device=device, file=str(image))
    mountpoint = session.run.place("disk")
    session.run.record(kind="mount", path=str(mountpoint))
    run(["mount", "-o", "noatime", device, str(mountpoint)])
    return mountpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000, help="small files in the sample")
    parser.add_argument("--profile", default="default", help="profile of the mount")
    arguments, passed_on = parser.parse_known_args()
    if os.geteuid() != 0:
        sys.exit("bench: needs root for the loop device and to drop the page cache")

    with Session("bench") as session:
        disk = quiet_disk(session)
        say("making the sample data ...")
        made = session.sample(arguments.images)
        with open(made / "weights.bin", "wb") as big:
            for _ in range(BIG_BYTES >> 24):
                big.write(os.urandom(1 << 24))
        native = disk / "native"
        shutil.copytree(made, native)
        session.upload(made)
        mount = session.mount("--profile", arguments.profile, hot=disk / "hot")
        say("filling the hot tier ...")
        read_all(files_below(mount), shuffled=False)
        say(session.command("bench", str(mount), "--against", str(native), *passed_on, timeout=3600).rstrip())


if __name__ == "__main__":
    main()
