"""A sync system: `synced.py URL` writes a Hive table of Parquet files with pyarrow, step by step.

    <- first | late | replace | delete    what to do next, a line on standard input
    -> {"dt=.../part-0.parquet": sha256}   all of it is written; the table as it is now
    <- go                                  (not for delete)
    -> marked                              `_SUCCESS` is written

Every step works in `_temporary` and moves files to their place, as committers do, slowly enough to be
looked at in between. `URL` is a directory or `s3://bucket/table`.
"""

import hashlib
import json
import os
import sys
import time

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

ROWS = 3000
FILES = 3
SLOWLY = 0.15
STAGING = "_temporary/0/_temporary/attempt_0"


def open_place(url: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a URL, and the path of the table in it."""
    if not url.startswith("s3://"):
        return pyarrow.fs.LocalFileSystem(), url
    scheme, endpoint = os.environ["AWS_ENDPOINT_URL"].split("://")
    return pyarrow.fs.S3FileSystem(scheme=scheme, endpoint_override=endpoint), url.removeprefix("s3://")


class Writer:
    """One table, and the steps of its life."""

    def __init__(self, url: str):
        self.place, self.table = open_place(url)
        self.generation = 0

    def path(self, below: str) -> str:
        return f"{self.table}/{below}"

    def write(self, below: str, rows: int = ROWS) -> None:
        """One file; its bytes depend on its name and on how often the table was written."""
        start = int.from_bytes(hashlib.sha256(f"{below} {self.generation}".encode()).digest()[:4])
        table = pa.table({"id": pa.array(range(start, start + rows)), "file": pa.array([below] * rows)})
        pq.write_table(table, self.path(below), filesystem=self.place)

    def write_partition(self, day: str) -> None:
        """Files in `_temporary` first, then each in its place. The writer stays visibly at work."""
        self.place.create_dir(self.path(f"{STAGING}/dt={day}"))
        self.place.create_dir(self.path(f"dt={day}"))
        self.write(f"{STAGING}/still-open.parquet", rows=7)
        for number in range(FILES):
            name = f"dt={day}/part-{number}-{self.generation}.parquet"
            self.write(f"{STAGING}/{name}")
            time.sleep(SLOWLY)
            self.place.move(self.path(f"{STAGING}/{name}"), self.path(name))

    def staging_gone(self) -> None:
        self.place.delete_dir(self.path("_temporary"))

    def contents(self) -> dict[str, str]:
        """Every data file and its digest, as the store has it."""
        found = {}
        for info in self.place.get_file_info(pyarrow.fs.FileSelector(self.table, recursive=True)):
            below = info.path.removeprefix(f"{self.table}/")
            hidden = any(part.startswith(("_", ".")) for part in below.split("/"))
            if info.type == pyarrow.fs.FileType.File and not hidden:
                with self.place.open_input_stream(info.path) as file:
                    found[below] = hashlib.sha256(file.read()).hexdigest()
        return found

    def step(self, name: str) -> None:
        self.generation += 1
        if name == "first":
            self.place.create_dir(self.path(".spark-staging-7d1f"))
            self.write(".spark-staging-7d1f/part-0.parquet")
            self.write_partition("2026-11-18")
            self.write_partition("2026-11-19")
            self.place.delete_dir(self.path(".spark-staging-7d1f"))
        elif name == "late":
            self.write_partition("2026-11-20")
        elif name == "replace":
            # As a dynamic overwrite does: the old files go before the new ones come.
            self.place.create_dir(self.path(STAGING))
            self.write(f"{STAGING}/started.parquet", rows=1)
            self.place.delete_dir(self.path("dt=2026-11-18"))
            self.write_partition("2026-11-18")
        elif name == "delete":
            self.place.delete_dir(self.path("dt=2026-11-19"))
        else:
            raise SystemExit(f"no step {name}")
        if name != "delete":
            self.staging_gone()
        print(json.dumps(self.contents()), flush=True)


def main() -> None:
    writer = Writer(sys.argv[1])
    for line in sys.stdin:
        name = line.strip()
        if name != "go":
            writer.step(name)
            continue
        with writer.place.open_output_stream(writer.path("_SUCCESS")) as marker:
            marker.write(b"")
        print("marked", flush=True)


if __name__ == "__main__":
    main()
