#!/usr/bin/env python3
"""Makes the sample data: a Hive-partitioned Parquet table and a folder of images in classes.

    sample.py DIRECTORY [--rows N] [--images N] [--day DAY]

`--day` makes one more day of the table and nothing else. The images are valid PNG files of about 100 kB
that no compressor shrinks. Seeded: every run makes the same bytes. Runs in a virtual environment with
pyarrow.
"""

import argparse
import random
import struct
import zlib
from pathlib import Path

import pyarrow
import pyarrow.parquet

DAYS = ("2026-11-18", "2026-11-19", "2026-11-20")
COUNTRIES = ("de", "fr", "jp", "us")
CLASSES = 20
SIDE = 184


def table(root: Path, days: tuple[str, ...], count: int, seed: random.Random) -> None:
    """clicks/dt=<day>/country=<code>/part-0.parquet"""
    for day in days:
        for country in COUNTRIES:
            rows = pyarrow.table({
                "user_id": pyarrow.array([seed.getrandbits(40) for _ in range(count)], pyarrow.int64()),
                "item_id": pyarrow.array([seed.getrandbits(31) for _ in range(count)], pyarrow.int32()),
                "price": pyarrow.array([seed.random() * 100 for _ in range(count)], pyarrow.float64()),
                "clicked": pyarrow.array([bit == "1" for bit in f"{seed.getrandbits(count):0{count}b}"]),
            })
            directory = root / "clicks" / f"dt={day}" / f"country={country}"
            directory.mkdir(parents=True)
            pyarrow.parquet.write_table(rows, directory / "part-0.parquet", compression="snappy")


def png(seed: random.Random) -> bytes:
    """One RGB image of noise."""
    rows = b"".join(b"\0" + seed.randbytes(SIDE * 3) for _ in range(SIDE))

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows, 0)) + part(b"IEND", b"")


def images(root: Path, count: int, seed: random.Random) -> None:
    """images/class-<nn>/<number>.png"""
    for number in range(count):
        directory = root / "images" / f"class-{number % CLASSES:02}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number:06}.png").write_bytes(png(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rows", type=int, default=250_000, help="rows of each file")
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--day", help="this day of the table alone")
    arguments = parser.parse_args()
    days = (arguments.day,) if arguments.day else DAYS
    table(arguments.directory, days, arguments.rows, random.Random(arguments.day or 1))
    images(arguments.directory, arguments.images, random.Random(2))


if __name__ == "__main__":
    main()
