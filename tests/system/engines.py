"""SQL engines nobody here wrote, over the Iceberg face of a catalog: `engines.py STEP ARGUMENT..`.

    engines.py write DIRECTORY:PART       files of a table, as a sync system writes them
    engines.py ENGINE URL TOKEN WAREHOUSE what the engine finds in the table `ads.clicks`

Each step prints one JSON line. A step that fails ends with the engine's own words.
"""

import json
import os
import sys
from pathlib import Path

DAY = "2026-11-21"
ROWS = 100


def write(directory: str) -> dict:
    """Partitions by the part of the script's name behind `:`; a file for each half of the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place, _, what = directory.partition(":")
    days = {"first": range(20, 24), "second": range(24, 26), "mixed": range(26, 27)}[what]
    for day in days:
        partition = Path(place) / f"dt=2026-11-{day}"
        partition.mkdir(parents=True)
        for half in range(2):
            first = day * 1000 + half * ROWS
            columns = {
                "id": pa.array(range(first, first + ROWS), pa.int64()),
                "name": pa.array([f"user {at}" for at in range(ROWS)]),
                "price": pa.array([at / 4 for at in range(ROWS)], pa.float64()),
            }
            if what == "second":
                columns["score"] = pa.array([at % 5 for at in range(ROWS)], pa.int32())
            if what == "mixed":
                columns["price"] = pa.array([f"{at} EUR" for at in range(ROWS)])
            pq.write_table(pa.table(columns), partition / f"part-{half}.parquet")
    (Path(place) / "_SUCCESS").touch()
    return {"rows": len(days) * 2 * ROWS}


def pyiceberg(url: str, token: str, warehouse: str) -> dict:
    """The reference implementation in Python."""
    from pyiceberg.catalog.rest import RestCatalog
    from pyiceberg.table import StaticTable

    catalog = RestCatalog("c", uri=f"{url}/iceberg", token=token, warehouse=warehouse)
    table = catalog.load_table("ads.clicks")
    day = table.scan(row_filter=f"dt == '{DAY}'")
    columns = table.schema().column_names
    answer = {
        "namespaces": [".".join(name) for name in catalog.list_namespaces()],
        "tables": [".".join(name) for name in catalog.list_tables("ads")],
        "exists": [catalog.table_exists("ads.clicks"), catalog.table_exists("ads.nothing")],
        "columns": columns,
        "count": table.scan().count(),
        "sum": sum(table.scan(selected_fields=("id",)).to_arrow()["id"].to_pylist()),
        "day": len(day.to_arrow()),
        "day_files": len(list(day.plan_files())),
        "all_files": len(list(table.scan().plan_files())),
        "id_files": len(list(table.scan(row_filter="id == 22001").plan_files())),
        "id_count": table.scan(row_filter="id == 22001").count(),
        "nobody_files": len(list(table.scan(row_filter="name == 'zoe'").plan_files())),
        "null_files": len(list(table.scan(row_filter="id is null").plan_files())),
        "version": len(table.scan(snapshot_id=1).to_arrow()),
        "tag": len(table.scan(snapshot_id=table.snapshot_by_name("first").snapshot_id).to_arrow()),
        "pinned": len(catalog.load_table("ads.clicks@v1").scan().to_arrow()),
        "static": StaticTable.from_metadata(table.metadata_location).scan().count(),
        "left_out": table.properties["terrace.partitions-left-out"],
    }
    if "score" in columns:
        answer["nulls"] = table.scan(row_filter="score is null").to_arrow().num_rows
    return answer


def left_out(url: str, token: str, warehouse: str) -> dict:
    """The table after one of its columns became another: what is left of it, and the version before."""
    from pyiceberg.catalog.rest import RestCatalog

    catalog = RestCatalog("c", uri=f"{url}/iceberg", token=token, warehouse=warehouse)
    table = catalog.load_table("ads.clicks")
    before = catalog.load_table("ads.clicks@v2").scan().to_arrow()
    return {
        "partitions": table.properties["terrace.partitions-left-out"],
        "versions": table.properties["terrace.versions-left-out"],
        "count": table.scan().to_arrow().num_rows,
        "day": table.scan(row_filter=f"dt == '{DAY}'").to_arrow().num_rows,
        "price": table.scan(row_filter="id == 26006").to_arrow()["price"][0].as_py(),
        "pinned": before.num_rows,
        "older_price": before.sort_by("id")["price"][6].as_py(),
    }


def polars(url: str, token: str, warehouse: str) -> dict:
    """A data frame library whose reader is its own and whose metadata is PyIceberg's."""
    import polars as pl
    from pyiceberg.catalog.rest import RestCatalog

    catalog = RestCatalog("c", uri=f"{url}/iceberg", token=token, warehouse=warehouse)
    table = catalog.load_table("ads.clicks")
    frame = pl.scan_iceberg(table)
    day = frame.filter(pl.col("dt") == DAY)
    # Its plan hands conditions to PyIceberg, which leaves files out by what manifests tell of them.
    one = frame.filter(pl.col("id") == 22001)
    return {
        "columns": frame.collect_schema().names(),
        "count": frame.select(pl.len()).collect().item(),
        "sum": frame.select(pl.col("id").sum()).collect().item(),
        "day": day.collect().height,
        "plan": day.explain(),
        "id_plan": one.explain(),
        "id_count": one.collect().height,
        "version": pl.scan_iceberg(table, snapshot_id=1).collect().height,
        "pinned": pl.scan_iceberg(catalog.load_table("ads.clicks@v1")).collect().height,
        "nulls": frame.select(pl.col("score").null_count()).collect().item(),
    }


def duckdb_catalog(url: str, token: str, warehouse: str):
    """A connection with the catalog attached as `c`, and extensions from packages only."""
    import importlib

    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    for extension in ("avro", "httpfs", "iceberg"):
        package = Path(importlib.import_module(f"duckdb_extension_{extension}").__file__).parent
        [program] = package.rglob(f"{extension}.duckdb_extension")
        connection.execute(f"load '{program}'")
    connection.execute(f"create secret (type http, bearer_token '{token}', scope '{url}')")
    connection.execute(f"attach '{warehouse}' as c (type iceberg, endpoint '{url}/iceberg', token '{token}')")
    return connection


def duckdb(url: str, token: str, warehouse: str) -> dict:
    """An SQL engine in C++ that shares no code with the other two."""
    connection = duckdb_catalog(url, token, warehouse)

    def one(query: str):
        return connection.execute(query).fetchone()[0]

    def plan(condition: str) -> str:
        return connection.execute(f"explain analyze select count(*) from c.ads.clicks where {condition}").fetchall()[0][1]

    return {
        "tables": [row[0] for row in connection.execute(
            "select table_name from information_schema.tables where table_catalog = 'c' order by 1").fetchall()],
        "count": one("select count(*) from c.ads.clicks"),
        "sum": int(one("select sum(id) from c.ads.clicks")),
        "day": one(f"select count(*) from c.ads.clicks where dt = '{DAY}'"),
        "plan": plan(f"dt = '{DAY}'"),
        "id_plan": plan("id = 22001"),
        "id_count": one("select count(*) from c.ads.clicks where id = 22001"),
        "version": one("select count(*) from c.ads.clicks at (version => 1)"),
        "pinned": one('select count(*) from c.ads."clicks@v1"'),
        "tag": one('select count(*) from c.ads."clicks@first"'),
        "nulls": one("select count(*) from c.ads.clicks where score is null"),
    }


def duckdb_s3(url: str, token: str, warehouse: str) -> dict:
    """The same with the data in S3, read with the engine's own credentials."""
    connection = duckdb_catalog(url, token, warehouse)
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    connection.execute(f"""create secret (type s3, endpoint '{endpoint}', use_ssl false, url_style 'path',
                           key_id '{os.environ['AWS_ACCESS_KEY_ID']}',
                           secret '{os.environ['AWS_SECRET_ACCESS_KEY']}', region '{os.environ['AWS_REGION']}')""")
    query = "select count(*), sum(id), count(*) filter (dt = ?) from c.ads.clicks"
    count, total, day = connection.execute(query, [DAY]).fetchone()
    return {"count": count, "sum": int(total), "day": day}


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    steps = {one.__name__: one for one in (write, pyiceberg, left_out, polars, duckdb, duckdb_s3)}
    print(json.dumps(steps[step](*arguments)))
