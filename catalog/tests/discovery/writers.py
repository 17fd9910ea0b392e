"""Writes tables with libraries that nobody here wrote: `writers.py WRITER DIRECTORY`.

Each writer prints one JSON line with what it wrote: the rows of the whole table.
"""

import json
import sys
from pathlib import Path


def rows(day: int, count: int = 100):
    """A table of simple and nested columns."""
    import datetime
    import decimal

    import pyarrow as pa

    return pa.table({
        "id": pa.array(range(day * 1000, day * 1000 + count), pa.int64()),
        "name": pa.array([f"name-{i}" if i % 7 else None for i in range(count)], pa.string()),
        "price": pa.array([decimal.Decimal(i).scaleb(-2) for i in range(count)], pa.decimal128(9, 2)),
        "at": pa.array([datetime.datetime(2026, 11, 20, day, 0, i % 60) for i in range(count)],
                       pa.timestamp("us", tz="UTC")),
        "small": pa.array([i % 100 for i in range(count)], pa.int8()),
        "tags": pa.array([["a", "b"][: i % 3] for i in range(count)], pa.list_(pa.string())),
        "place": pa.array([{"x": i, "y": i / 2} for i in range(count)],
                          pa.struct([("x", pa.int32()), ("y", pa.float64())])),
        "weights": pa.array([[("k", i)] for i in range(count)], pa.map_(pa.string(), pa.int32())),
    })


def pyarrow(directory: Path) -> int:
    """A Hive-partitioned directory, then the marker as a sync system writes it."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    table = pa.concat_tables([
        rows(day).append_column("dt", pa.array([f"2026-11-2{day}"] * 100)) for day in range(3)])
    ds.write_dataset(table, directory, format="parquet", partitioning=ds.partitioning(
        pa.schema([("dt", pa.string())]), flavor="hive"), max_rows_per_group=30, min_rows_per_group=10)
    (directory / "_SUCCESS").touch()
    return table.num_rows


def duckdb(directory: Path) -> int:
    """`COPY ... PARTITION_BY`."""
    import duckdb

    directory.mkdir(parents=True)
    duckdb.sql(f"""copy (select i as id, i % 2 = 0 as even, i / 2 as half, 'x' || i as name,
                   date '2026-11-20' + cast(i % 3 as integer) as dt from range(300) t(i))
                   to '{directory}' (format parquet, partition_by (dt), overwrite_or_ignore)""")
    (directory / "_SUCCESS").touch()
    return 300


def delta(directory: Path) -> int:
    """Three commits: write, append, delete of a partition. Removed files stay in the directory."""
    from deltalake import DeltaTable, write_deltalake

    import pyarrow as pa

    def day(number: int):
        table = rows(number).select(["id", "name", "price", "at"])
        return table.append_column("dt", pa.array([f"2026-11-2{number}"] * 100))

    write_deltalake(str(directory), day(0), partition_by=["dt"])
    write_deltalake(str(directory), day(1), mode="append")
    write_deltalake(str(directory), day(2), mode="append")
    DeltaTable(str(directory)).delete("dt = '2026-11-20'")
    return 200


def delta_checkpoint(directory: Path) -> int:
    """Fourteen commits, a checkpoint, and the log before it cleaned away; two commits more."""
    from deltalake import DeltaTable, write_deltalake

    import pyarrow as pa

    def day(number: int):
        table = rows(number, 10).select(["id", "name", "price", "at"])
        return table.append_column("dt", pa.array([f"2026-11-{number:02}"] * 10))

    for number in range(1, 14):
        write_deltalake(str(directory), day(number), partition_by=["dt"], mode="append")
    table = DeltaTable(str(directory))
    table.delete("dt = '2026-11-03'")
    table.create_checkpoint()
    for log in (directory / "_delta_log").glob("*.json"):
        if int(log.stem) < table.version():
            log.unlink()
    write_deltalake(str(directory), day(14), mode="append")
    DeltaTable(str(directory)).delete("dt = '2026-11-04'")
    return 120


def repacked(directory: Path, compression: str, version: str) -> int:
    """The checkpoint of a Delta table as another writer has it: other compression, other pages."""
    import pyarrow.parquet as pq

    checkpoint, = (directory / "_delta_log").glob("*.checkpoint.parquet")
    pq.write_table(pq.read_table(checkpoint), checkpoint, compression=compression, data_page_version=version)
    return 120


def orc(directory: Path) -> int:
    """A Hive-partitioned directory of ORC files, each with another compression."""
    import pyarrow.orc

    for day, compression in enumerate(["uncompressed", "snappy", "zlib", "zstd"]):
        place = directory / f"dt=2026-11-2{day}"
        place.mkdir(parents=True)
        table = rows(day).drop_columns(["at"])
        pyarrow.orc.write_table(table, str(place / "part-0.orc"), compression=compression)
    (directory / "_SUCCESS").touch()
    return 400


def iceberg(directory: Path) -> int:
    """PyIceberg with a catalog in SQLite beside the table: three appends, and a delete that drops one file
    and writes another one anew. Files of older snapshots stay in the directory."""
    from pyiceberg.catalog.sql import SqlCatalog

    directory.mkdir(parents=True)
    catalog = SqlCatalog("t", uri=f"sqlite:///{directory}/.catalog.db", warehouse=f"file://{directory.parent}")
    catalog.create_namespace("n")
    days = [rows(day).select(["id", "name", "price", "at"]) for day in range(3)]
    table = catalog.create_table("n.t", schema=days[0].schema, location=f"file://{directory}")
    for day in days:
        table.append(day)
    table.delete("id < 1050")
    return 150


if __name__ == "__main__":
    writer, place = sys.argv[1:]
    writers = {"pyarrow": pyarrow, "duckdb": duckdb, "delta": delta, "delta_checkpoint": delta_checkpoint,
               "delta_snappy": lambda directory: repacked(directory, "snappy", "1.0"),
               "delta_zstd": lambda directory: repacked(directory, "zstd", "2.0"),
               "orc": orc, "iceberg": iceberg}
    written = writers[writer](Path(place))
    print(json.dumps({"rows": written}))
