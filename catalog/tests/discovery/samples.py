"""Writes Parquet files with libraries that nobody here wrote: `samples.py DIRECTORY`.

Prints one JSON object: name of a file -> its first rows, as pyarrow reads them and as the catalog's
preview writes values down.
"""

import datetime
import decimal
import json
import sys
import uuid
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 500
SHOWN = 40
EXACT = 2**53


def day(i: int) -> datetime.date:
    return datetime.date(2026, 11, 20) - datetime.timedelta(days=i * 37)


def moment(i: int) -> datetime.datetime:
    return datetime.datetime(2026, 11, 20, 1, 2, 3, 450000) + datetime.timedelta(seconds=i * 7919)


def flat() -> pa.Table:
    """A column of every simple type, some values absent."""
    some = range(ROWS)
    gap = lambda values: [None if i % 5 == 3 else value for i, value in enumerate(values)]
    return pa.table({
        "bool": pa.array(gap(i % 3 == 0 for i in some), pa.bool_()),
        "i8": pa.array(gap(i % 200 - 100 for i in some), pa.int8()),
        "i32": pa.array([i * 7 - 1000 for i in some], pa.int32()),
        "i64": pa.array([2**60 + i if i % 2 else -i for i in some], pa.int64()),
        "u32": pa.array([2**32 - 1 - i for i in some], pa.uint32()),
        "u64": pa.array([2**64 - 1 - i for i in some], pa.uint64()),
        "f32": pa.array([i / 4 for i in some], pa.float32()),
        "f64": pa.array(gap(i / 3 for i in some), pa.float64()),
        "text": pa.array(gap(f"päth-{i % 9}" for i in some), pa.string()),
        "long": pa.array([f"common prefix of all {i:06}" for i in some], pa.string()),
        "date": pa.array([day(i) for i in some], pa.date32()),
        "time": pa.array([datetime.time(i % 24, i % 60, 7, 250000) for i in some], pa.time64("us")),
        "at": pa.array([moment(i) for i in some], pa.timestamp("us")),
        "utc": pa.array([moment(i) for i in some], pa.timestamp("ms", tz="UTC")),
        "small": pa.array([decimal.Decimal(i - 250).scaleb(-2) for i in some], pa.decimal128(9, 2)),
        "large": pa.array([decimal.Decimal(i - 250).scaleb(-3) * 10**20 for i in some], pa.decimal128(38, 3)),
        "raw": pa.array([bytes([0, i % 256]) for i in some], pa.binary()),
        "id": pa.array([uuid.UUID(int=i * 2**70 + 5).bytes for i in some], pa.uuid()),
    })


def nested() -> pa.Table:
    """Lists, structures and maps in each other, empty and absent."""
    lists = [None, [], ["a"], ["b", None, "c"]]
    return pa.table({
        "list": pa.array([lists[i % 4] for i in range(ROWS)], pa.list_(pa.string())),
        "lists": pa.array([[[i], [], None, [i, i + 1]][: i % 5] for i in range(ROWS)], pa.list_(pa.list_(pa.int32()))),
        "struct": pa.array([None if i % 7 == 0 else {"x": i, "in": {"y": None if i % 2 else f"y{i}"}} for i in range(ROWS)],
                           pa.struct([("x", pa.int32()), ("in", pa.struct([("y", pa.string())]))])),
        "structs": pa.array([[{"k": j, "v": [j] * j} for j in range(i % 3)] for i in range(ROWS)],
                            pa.list_(pa.struct([("k", pa.int32()), ("v", pa.list_(pa.int32()))]))),
        "map": pa.array([[(f"k{j}", j) for j in range(i % 4)] for i in range(ROWS)], pa.map_(pa.string(), pa.int32())),
        "after": pa.array(range(ROWS), pa.int32()),
    })


def shown(value, kind: pa.DataType):
    """A value as the preview writes it."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        return {key: shown(item, kind.item_type) for key, item in value}
    if pa.types.is_list(kind):
        return [shown(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: shown(value[field.name], field.type) for field in kind}
    if isinstance(value, datetime.datetime):
        text = value.strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".")
        return text + ("Z" if kind.tz else "")
    if isinstance(value, datetime.time):
        return value.strftime("%H:%M:%S.%f").rstrip("0").rstrip(".")
    if isinstance(value, (datetime.date, uuid.UUID)):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return f"{value:.{kind.scale}f}"
    if isinstance(value, bytes):
        return f"0x{value.hex()} ({len(value)} bytes)"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        return str(value)
    return value


def main() -> None:
    directory = Path(sys.argv[1])
    variants = {
        "plain": {"compression": "none", "use_dictionary": False},
        "usual": {"compression": "snappy"},
        "gzip2": {"compression": "gzip", "data_page_version": "2.0"},
        "zstd": {"compression": "zstd", "data_page_size": 1000},
        "pages": {"compression": "snappy", "data_page_size": 200, "write_batch_size": 10, "use_dictionary": False},
        "old": {"use_deprecated_int96_timestamps": True, "flavor": "spark"},
        "groups": {"row_group_size": 100},
    }
    encodings = {"i32": "DELTA_BINARY_PACKED", "i64": "DELTA_BINARY_PACKED", "text": "DELTA_LENGTH_BYTE_ARRAY",
                 "long": "DELTA_BYTE_ARRAY", "f32": "BYTE_STREAM_SPLIT", "f64": "BYTE_STREAM_SPLIT", "bool": "RLE"}
    for name, options in variants.items():
        for table, kind in ((flat(), "flat"), (nested(), "nested")):
            table = table.drop_columns([c for c in ("utc", "at") if name == "old" and c in table.column_names])
            if name == "old" and kind == "flat":
                table = table.append_column("at", flat()["at"]).drop_columns(["time"])
            pq.write_table(table, directory / f"{kind}-{name}.parquet", **options)
    pq.write_table(flat(), directory / "flat-delta.parquet", use_dictionary=False, column_encoding=encodings,
                   data_page_version="2.0")
    duckdb.sql(f"""copy (select i as id, i % 2 = 0 as even, i / 2 as half, 'x' || i as name, [i, i + 1] as pair,
                   date '2026-11-20' + cast(i % 3 as integer) as d from range({ROWS}) t(i))
                   to '{directory}/duckdb.parquet' (format parquet, parquet_version v2)""")
    found = {}
    for path in sorted(directory.glob("*.parquet")):
        table = pq.read_table(path).slice(0, SHOWN)
        # The 96-bit times have no zone in the file, and are moments by convention.
        moments = path.stem == "flat-old"
        columns = []
        for field, column in zip(table.schema, table.columns):
            values = [shown(value, field.type) for value in column.to_pylist()]
            columns.append([f"{value}Z" for value in values] if moments and field.name == "at" else values)
        found[path.name] = {"names": table.column_names, "rows": [list(row) for row in zip(*columns)]}
    json.dump(found, sys.stdout)


main()
