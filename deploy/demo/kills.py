#!/usr/bin/env python3
"""What `kill -9` of the worker costs applications, on a quiet disk: an ext4 image in memory.

    make bench-kills KILLS_ARGS="--kills 50"

Runs the test that kills the worker at random times under 8 clients that compare every byte, and fails
if one of them sees an error or a wrong byte, or waits longer than the bar at p99. Needs root.
"""

import argparse
import os
import subprocess
import sys

from session import REPOSITORY, Session

TEST = ["cargo", "test", "--workspace", "--locked", "--test", "takeover", "killed_at_random_times"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="how often the worker is killed")
    parser.add_argument("--bar", type=int, default=250, help="allowed at p99, in ms")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench-kills: needs root for the loop device and to mount")

    with Session("kills") as session:
        told = {
            "TERRACE_TEST_KILLS": str(arguments.kills),
            "TERRACE_TEST_GAP": str(arguments.bar),
            "TERRACE_TEST_DIR": str(session.quiet_disk()),
        }
        done = subprocess.run([*TEST, "--", "--nocapture"], cwd=REPOSITORY, env={**os.environ, **told},
                              check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
