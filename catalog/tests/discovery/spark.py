"""Spark writes tables: `spark.py DIRECTORY`, one JVM for all steps.

    <- a step, a line on standard input: see STEPS
    -> a JSON line with what it has come to

Everything is done by Spark's own committers; nothing here writes a marker or a staging directory.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

MARKS = "mapreduce.fileoutputcommitter.marksuccessfuljobs"
ALGORITHM = "mapreduce.fileoutputcommitter.algorithm.version"

# How long the job that is to be killed may take to get into its middle, seconds.
PATIENCE = 240


class Steps:
    """What Spark is asked to do, one method for each step."""

    def __init__(self, directory: Path):
        self.table = directory
        builder = SparkSession.builder.master("local[2]").appName("writers")
        for name, value in {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2",
                            "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
                            "spark.driver.memory": "512m", "spark.log.level": "ERROR",
                            "spark.sql.warehouse.dir": str(directory.parent / ".spark")}.items():
            builder = builder.config(name, value)
        self.spark = builder.getOrCreate()

    def rows(self, *days: str, count: int = 50, add: int = 0):
        """`count` rows for each day."""
        frames = [self.spark.range(add, add + count).select(
            "id", (f.col("id") * 2).cast("int").alias("twice"),
            f.concat(f.lit("name-"), f.col("id")).alias("name"), f.lit(day).alias("dt")) for day in days]
        whole = frames[0]
        for frame in frames[1:]:
            whole = whole.union(frame)
        return whole

    def first(self) -> int:
        """A new table with three partitions."""
        self.rows("2026-11-18", "2026-11-19", "2026-11-20").write.partitionBy("dt").parquet(str(self.table))
        return 150

    def dynamic(self) -> int:
        """Replaces one partition and no other. Spark writes no marker then, and leaves the old one."""
        self.rows("2026-11-19", count=20, add=1000).write.partitionBy("dt").mode("overwrite") \
            .option("partitionOverwriteMode", "dynamic").parquet(str(self.table))
        return 120

    def append_unmarked(self) -> int:
        """Appends; the job is told not to mark its success."""
        self.rows("2026-11-20", count=5, add=2000).write.option(MARKS, "false").partitionBy("dt") \
            .mode("append").parquet(str(self.table))
        return 125

    def append(self) -> int:
        """Appends as everybody does: the marker of before is written again."""
        self.rows("2026-11-21", count=5).write.partitionBy("dt").mode("append").parquet(str(self.table))
        return 130

    def orc(self) -> int:
        """Another table, in Spark's other format."""
        self.rows("2026-11-18").write.partitionBy("dt").orc(str(self.table.parent / "in_orc"))
        return 50

    def killed(self) -> int:
        """A job whose first task has moved its files into the table already, and that is killed in the
        second: what a lost driver leaves."""
        @f.udf("long")
        def slow(number: int) -> int:
            if number >= 15_000:
                time.sleep(600)
            return number

        rows = self.spark.range(0, 20_000, 1, 2).select(
            slow("id").alias("id"), f.lit(0).alias("twice"), f.lit("x").alias("name"), f.lit("2026-11-22").alias("dt"))
        write = rows.write.option(ALGORITHM, "2").partitionBy("dt").mode("append").parquet
        threading.Thread(target=write, args=(str(self.table),), daemon=True).start()
        staging = self.table / "_temporary"
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not list((self.table / "dt=2026-11-22").glob("part-*")):
            time.sleep(0.05)
        os.kill(self.spark._jvm.java.lang.ProcessHandle.current().pid(), signal.SIGKILL)
        return len(list(staging.rglob("*")))


def main() -> None:
    steps = Steps(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps({"rows": getattr(steps, line.strip())()}), flush=True)
        if line.strip() == "killed":
            # Without its JVM the client has nothing to close.
            os._exit(0)
    steps.spark.stop()


if __name__ == "__main__":
    main()
