"""HDFS: one NameNode and one DataNode, two JVMs, from the jars that `hdfs/pom.xml` resolves.

Replication 1, blocks of 16 MiB (a test of a few blocks stays small), WebHDFS on, permissions
checked as on a real cluster. The user who starts the servers is HDFS's superuser.
"""

import json
import os
import urllib.request
from pathlib import Path

from support import HERE, Run, built_tool, free_ports, need_program, run

CONFIGURATION = HERE / "hdfs"
NAME_NODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATA_NODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"


def build(directory: Path) -> None:
    """All jars of the class path, copied into one directory."""
    run(["mvn", "-B", "-q", "-f", str(CONFIGURATION / "pom.xml"), "dependency:copy-dependencies",
         "-DincludeScope=runtime", f"-DoutputDirectory={directory}"], timeout=900)


def live_data_nodes(http: str) -> int:
    """How many DataNodes the NameNode counts as live."""
    query = f"{http}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
    with urllib.request.urlopen(query, timeout=3) as answer:
        beans = json.load(answer)["beans"]
    return beans[0]["NumLiveDataNodes"] if beans else 0


class Hdfs:
    """A cluster of one NameNode and one DataNode."""

    name = "hdfs"
    variable = "TERRACE_TEST_HDFS"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The directory of the jars."""
        need_program("java", "mvn")
        return built_tool("hadoop", [CONFIGURATION / "pom.xml"], build)

    def up(self) -> dict[str, str]:
        jars = self.prepare()
        rpc, http = free_ports(2)
        conf = self.configure(rpc, http)
        java = ["java", "-Xmx512m", "-Djava.net.preferIPv4Stack=true",
                # WebHDFS's XML binding defines classes by reflection.
                "--add-opens=java.base/java.lang=ALL-UNNAMED",
                "-cp", f"{conf}:{jars}/*"]
        environment = dict(os.environ, HADOOP_CONF_DIR=str(conf))
        run(java + [NAME_NODE, "-format", "-nonInteractive", "-force"], timeout=120, env=environment)
        name_node = self.run.spawn("namenode", java + [NAME_NODE], env=environment)
        data_node = self.run.spawn("datanode", java + [DATA_NODE], env=environment)
        url = f"http://127.0.0.1:{http}"
        self.run.wait("namenode", name_node, 90, lambda: live_data_nodes(url) >= 0)
        self.run.wait("datanode", data_node, 90, lambda: live_data_nodes(url) == 1)
        return {
            "TERRACE_TEST_HDFS": f"hdfs://127.0.0.1:{rpc}",
            "TERRACE_TEST_WEBHDFS": f"webhdfs://127.0.0.1:{http}",
            "TERRACE_TEST_HADOOP_CONF_DIR": str(conf),
        }

    def configure(self, rpc: int, http: int) -> Path:
        """Writes the class path's configuration directory."""
        conf = self.run.place("hdfs", "conf")
        data = self.run.place("hdfs", "data")
        # The servers look for their web pages on the class path; the API needs none of them.
        for pages in ("hdfs", "datanode"):
            self.run.place("hdfs", "conf", "webapps", pages)
        (conf / "log4j.properties").write_text((CONFIGURATION / "log4j.properties").read_text())
        for name in ("core-site.xml", "hdfs-site.xml"):
            text = (CONFIGURATION / name).read_text()
            for key, value in (("@RPC@", rpc), ("@HTTP@", http), ("@DATA@", data)):
                text = text.replace(key, str(value))
            (conf / name).write_text(text)
        return conf

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        return live_data_nodes(environment["TERRACE_TEST_WEBHDFS"].replace("webhdfs", "http")) == 1
