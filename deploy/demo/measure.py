"""Reads directories the way training does, and takes the time."""

import hashlib
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

READ_BYTES = 1 << 20
THREADS = 4


def files_below(root: Path) -> list[Path]:
    """Every file, in a fixed order."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def read_file(path: Path, buffer: bytearray) -> int:
    """Reads one file to its end; its length."""
    total = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while count := os.readv(descriptor, [buffer]):
            total += count
    finally:
        os.close(descriptor)
    return total


def read_all(paths: list[Path], shuffled: bool) -> int:
    """Reads files with several threads; bytes read."""
    paths = list(paths)
    if shuffled:
        random.Random(7).shuffle(paths)

    def share(number: int) -> int:
        buffer = bytearray(READ_BYTES)
        return sum(read_file(path, buffer) for path in paths[number::THREADS])

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(share, range(THREADS)))


def list_all(root: Path) -> int:
    """Names and sizes of a whole tree, as `find -printf %s` asks for them; entries seen."""
    seen, open_directories = 0, [root]
    while open_directories:
        with os.scandir(open_directories.pop()) as entries:
            for entry in entries:
                seen += 1
                if entry.is_dir(follow_symlinks=False):
                    open_directories.append(Path(entry.path))
                else:
                    entry.stat(follow_symlinks=False)
    return seen


def drop_page_cache() -> bool:
    """Forgets what the kernel has cached of files; False without the right to."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def paired(ours: Callable[[], object], native: Callable[[], object], rounds: int,
           before: Callable[[], object] = lambda: None) -> tuple[float, float]:
    """Medians of both, measured in turns so that a noisy disk is noisy for both."""
    results: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        turns = [(0, ours), (1, native)]
        for which, action in turns if number % 2 == 0 else reversed(turns):
            before()
            results[which].append(timed(action))
    return median(results[0]), median(results[1])


def same_bytes(left: Path, right: Path) -> int:
    """Compares two trees file by file; how many files. Raises on the first difference."""
    ours, native = files_below(left), files_below(right)
    if [path.relative_to(left) for path in ours] != [path.relative_to(right) for path in native]:
        raise SystemExit(f"{left} and {right} do not have the same files")
    for one, other in zip(ours, native):
        if digest(one) != digest(other):
            raise SystemExit(f"{one} differs from {other}")
    return len(ours)


def digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
