#!/usr/bin/env python3
"""Cold reads through a mount beside what the client libraries do alone, and the worker's memory.

    make bench-cold COLD_ARGS="--rounds 5"

Each round empties the hot tier (`terrace evict`) and the page cache, then reads through the mount and,
in turn, with the bare client library (`plain_get`). The hot tier lies on an ext4 image in memory, the
store runs on this machine. With --hdfs also a large file of HDFS, beside one stream of its client.
Prints one JSON document with medians and ratios. Needs root.
"""

import argparse
import getpass
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median

from measure import drop_page_cache, files_below, timed
from session import BUCKET, REPOSITORY, Session, say
from hdfs import Hdfs
from s3client import S3Client
from support import run

SMALL_BYTES = 100_000


class MemoryWatch:
    """Samples the resident memory of a process; the most it had."""

    def __init__(self, pid: int):
        self.most = 0
        self.pid = pid
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self.end.wait(0.05):
            try:
                # Shared pages are counted too: an upper bound of what the daemon costs.
                resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * page
            except OSError:
                return
            self.most = max(self.most, resident)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()


def plain(session: Session, mode: str, url: str, parallel: int) -> float:
    """Seconds that the bare client library takes, its start not counted."""
    target = os.environ.get("CARGO_TARGET_DIR") or str(session.directory.parent / "target")
    done = subprocess.run([f"{target}/debug/examples/plain_get", mode, url, str(parallel)],
                          env=session.environment, text=True, capture_output=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f"plain_get {mode} {url}: {done.stderr.strip()}")
    return float(done.stdout.split()[2])


def cold(session: Session, path: Path) -> None:
    """Forgets `path` in the hot tier and in the page cache."""
    session.command("evict", str(path), timeout=600)
    if not drop_page_cache():
        sys.exit("cold: needs root to drop the page cache")


def read_sequentially(path: Path) -> None:
    """Read calls of 1 MiB, in this process: a program started now would be read from the disk first, because the
    page cache is empty, while the bare client's start is not counted."""
    buffer = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def read_small(directory: Path, processes: int) -> None:
    """The files of a directory as `find | xargs cat` reads them."""
    command = f"find {directory} -type f -print0 | xargs -0 -P{processes} -n64 cat > /dev/null"
    run(["sh", "-c", command], timeout=900)


def sequential(session: Session, mount: Path, url: str, rounds: int, parallel: int) -> dict:
    file = next(path for path in files_below(mount) if path.name == "big.bin")
    size = file.stat().st_size
    ours, alone = [], []
    for number in range(rounds):
        for ours_turn in ([True, False] if number % 2 == 0 else [False, True]):
            if ours_turn:
                cold(session, file)
                ours.append(size / timed(lambda: read_sequentially(file)) / 1e6)
            else:
                drop_page_cache()
                alone.append(size / 1e6 / plain(session, "ranged", f"{url}/big.bin", parallel))
    return paired(f"cold sequential from {url.partition(':')[0]}, MB/s", ours, alone)


def small(session: Session, mount: Path, rounds: int, processes: int, count: int) -> dict:
    directory = mount / "small"
    ours, alone = [], []
    for _ in range(rounds):
        cold(session, directory)
        ours.append(count / timed(lambda: read_small(directory, processes)))
        alone.append(count / plain(session, "serial", f"s3://{BUCKET}/sample/small", 1))
    return paired("cold small files, files/s", ours, alone)


def paired(name: str, ours: list[float], alone: list[float]) -> dict:
    ratios = [one / other for one, other in zip(ours, alone)]
    return {"name": name, "ours": median(ours), "client alone": median(alone), "ratio": median(ratios),
            "ratios": [round(ratio, 3) for ratio in sorted(ratios)]}


def seed(session: Session, megabytes: int, files: int) -> None:
    client = S3Client(session.environment)
    source = session.directory / "seed"
    (source / "small").mkdir(parents=True)
    with open(source / "big.bin", "wb") as big:
        for _ in range(megabytes // 16):
            big.write(os.urandom(16 << 20))
    for number in range(files):
        (source / "small" / f"{number:06}.bin").write_bytes(os.urandom(SMALL_BYTES))
    client.put_tree(BUCKET, "sample", source)


def hdfs(session: Session, disk: Path, megabytes: int, rounds: int) -> dict:
    """One large file of HDFS."""
    servers = Hdfs(session.run).up()
    session.environment.update(servers)
    web = servers["TERRACE_TEST_WEBHDFS"].replace("webhdfs", "http")
    place = f"{web}/webhdfs/v1/sample/big.bin?op=CREATE&overwrite=true&user.name={getpass.getuser()}"
    asked = urllib.request.Request(f"{place}&noredirect=true", method="PUT")
    with urllib.request.urlopen(asked, timeout=60) as answer:
        location = json.load(answer)["Location"]
    data = os.urandom(megabytes << 20)
    urllib.request.urlopen(urllib.request.Request(location, data=data, method="PUT"), timeout=600).close()
    url = f"{servers['TERRACE_TEST_HDFS']}/sample"
    mount = session.mount(hot=disk / "hot", source=url)
    return sequential(session, mount, url, rounds, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1024, help="length of the large object")
    parser.add_argument("--files", type=int, default=20_000, help="number of small objects")
    parser.add_argument("--processes", type=int, default=4, help="readers of small files")
    parser.add_argument("--hdfs", action="store_true", help="HDFS too: needs java and mvn")
    parser.add_argument("--parallel", type=int, default=8, help="ranged reads of the bare client")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("cold: needs root")
    run(["cargo", "build", "--locked", "--workspace", "--example", "plain_get"], timeout=3600)
    with Session("cold") as session:
        disk = session.quiet_disk()
        say("seeding the store ...")
        seed(session, arguments.megabytes, arguments.files)
        mount = session.mount(hot=disk / "hot")
        began = time.monotonic()
        with MemoryWatch(session.processes()[1]["pid"]) as memory:
            results = [
                sequential(session, mount, f"s3://{BUCKET}/sample", arguments.rounds, arguments.parallel),
                small(session, mount, arguments.rounds, arguments.processes, arguments.files),
            ]
            if arguments.hdfs:
                results.append(hdfs(session, disk, arguments.megabytes, arguments.rounds))
        say(json.dumps({"results": results, "worker_peak_rss_mib": memory.most >> 20,
                        "seconds": round(time.monotonic() - began)}, indent=2))


if __name__ == "__main__":
    main()
