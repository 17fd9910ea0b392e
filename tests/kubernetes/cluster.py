#!/usr/bin/env python3
"""Terrace on a real cluster of one node: kubelet, scheduler, controllers, containers, the chart, and pods.

    tests/kubernetes/cluster.py --binary PATH/terrace [--programs DIRECTORY]
    tests/kubernetes/cluster.py --image terrace.tar

Outside of `make test`, and as root: everything runs in namespaces of its own (`machine.py`) and is gone at the end,
also after a failure. What is compiled, once, is kept in $TERRACE_TOOLS (half an hour of one processor); two of the
sidecars are programs of the caller's (`sidecars.py`). Needs Go, etcd, containerd, runc, the CNI plugins, iptables and
kubectl (Debian: etcd-server containerd runc containernetworking-plugins iptables) and mkfs.xfs. The steps are those
of docs/INSTALL.md, "One node, step by step". Ends with 0, or with 1 and the check that failed.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "servers"))

import machine
from support import Run, Unavailable, built_tool
from world import VERSION, kubernetes

NAMESPACE = "terrace-system"
TEAM = "team"
NEEDED = ("etcd", "kubectl", "openssl", "containerd", "runc", "ctr", "unshare", "losetup", "iptables", "ip", "mkfs.xfs", "go")
TAINT = {"key": "terrace.io/agent-not-ready", "effect": "NoSchedule"}
IMAGE = "docker.io/library/terrace"
VOLUMES = f"{machine.SHARED}/volumes"
# Below it directories may have a cold store.
ARCHIVE = "s3://terrace/archive"
PLACE = "/var/lib/terrace/data"
ACCESS = ["--catalog", f"https://terrace-catalog.{NAMESPACE}.svc:7420", "--ca-file", "/etc/terrace/tls/ca.crt",
          "--token-file", f"{PLACE}/token"]


def partition(day: int) -> dict[str, bytes]:
    """Files of a day: some blocks, and different for each."""
    return {f"day={day}/part-{part}.csv": b"a,b\n" + b"".join(b"%d,%d\n" % (day, part * row) for row in range(150_000))
            for part in range(2)}


def digest(days: int) -> str:
    """Of all files of the first days, in the order of their names."""
    files = {name: data for day in range(1, days + 1) for name, data in partition(day).items()}
    return hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tested = parser.add_mutually_exclusive_group(required=True)
    tested.add_argument("--binary", type=Path, help="the terrace to test")
    tested.add_argument("--image", type=Path, help=f"or an image made of deploy/Dockerfile: docker-archive of {IMAGE}:0.1.0")
    parser.add_argument("--programs", type=Path, help="where the programs of two sidecars are")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # With everything that is cleaned up.
    if args.inside:
        return inside(args)
    lacking = [name for name in NEEDED if not shutil.which(name)]
    if os.geteuid() != 0 or lacking or not Path("/usr/lib/cni/bridge").exists():
        print(f"SKIP tests/kubernetes/cluster: needs root, the CNI plugins and {', '.join(lacking) or 'nothing else'}")
        return 0
    from packaging import Packaging
    try:
        tools = Packaging.prepare()
    except Unavailable as lack:
        print(f"SKIP tests/kubernetes/cluster: {lack}")
        return 0
    if Path(sys.prefix) != tools.parent:
        # Helm's SDK is a package of that Python.
        os.execv(tools / "python", [str(tools / "python"), *sys.argv])
    # Inside there is no network to fetch anything by.
    kubernetes()
    import images
    import sidecars
    for key, image in sidecars.named().items():
        sidecars.program(key, image, args.programs)
    sidecars.snapshot_controller()
    sidecars.definitions()
    base = built_tool("workload", [HERE / "images.py"], images.workload)
    words = ["--image", str(args.image.resolve())] if args.image else ["--binary", str(args.binary.resolve())]
    if args.programs:
        words += ["--programs", str(args.programs.resolve())]
    return machine.isolated(Path(__file__).resolve(), [*words, "--base", str(base)])


def inside(args: argparse.Namespace) -> int:
    """Process 1: brings everything up, checks, and ends with all of it."""
    import checks
    import images
    import sidecars
    began = time.monotonic()
    archives = args.inside / "images"
    archives.mkdir()
    made = [archives / "terrace.tar", *sidecars.images(archives, args.programs)]
    if args.image:
        shutil.copy(args.image, made[0])
    else:
        images.ours(made[0], archives, args.binary, f"{IMAGE}:0.1.0")
    cluster = machine.Cluster(args.inside, args.group)
    try:
        cluster.enter()
        cluster.disk()
        cluster.control_plane()
        cluster.runtime([*made, args.base / "workload.tar", args.base / "pause.tar"])
        for archive in made[1:]:
            archive.unlink()
        cluster.node([TAINT])
        cluster.snapshots(sidecars.snapshot_controller(), sidecars.definitions())
        store = Store(cluster)
        for check in checks.ORDER:
            check(cluster, store)
    except BaseException:
        told(cluster)
        raise
    finally:
        cluster.end()
    print(f"{cluster.checks} checks on Kubernetes {VERSION}: passed, {time.monotonic() - began:.0f} s")
    return 0


def told(cluster: machine.Cluster) -> None:
    """What somebody needs who looks for the reason: pods, events, and last words of the programs."""
    for words in (["get", "pods,pvc", "-A", "-o", "wide"], ["get", "events", "-A", "--sort-by=.lastTimestamp"]):
        done = subprocess.run(["kubectl", f"--server={cluster.url}", "--insecure-skip-tls-verify=true", "--token=admin", *words],
                              capture_output=True, text=True)
        sys.stderr.write("\n".join(done.stdout.splitlines()[-60:]) + "\n")
    for name in cluster.running:
        sys.stderr.write(f"--- {name}\n{cluster.log(name)[-1500:]}\n")
    for path in sorted(Path("/var/log/pods").glob("*/*/*.log")):
        sys.stderr.write(f"--- {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-12:]) + "\n")


class Store:
    """An S3 server of the node, and what is written to it."""

    def __init__(self, cluster: machine.Cluster):
        from s3 import S3
        from s3client import S3Client
        S3.address = machine.ADDRESS
        directory = cluster.place / "store"
        directory.mkdir()
        self.environment = S3(Run(directory)).up()
        self.client = S3Client(self.environment)

    def objects(self, prefix: str) -> dict[str, int]:
        """Keys below a prefix and their sizes: the server keeps objects as files of directories."""
        found, directories = {}, [f"/buckets/terrace/{prefix}"]
        while directories:
            at = directories.pop()
            request = urllib.request.Request(f"{self.environment['TERRACE_TEST_S3_FILER']}{at}/?limit=1000",
                                             headers={"Accept": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    entries = json.loads(answer.read()).get("Entries") or []
            except urllib.error.HTTPError as error:
                assert error.code == 404, error
                continue
            for entry in entries:
                # The mode is Go's, whose highest bit says directory.
                if entry["Mode"] >> 31 & 1:
                    directories.append(entry["FullPath"])
                else:
                    found[entry["FullPath"].removeprefix("/buckets/terrace/")] = entry["FileSize"]
        return found

    def publish(self, days: range) -> None:
        """Writes partitions as a job does: files, then the marker."""
        for day in days:
            for name, data in partition(day).items():
                self.client.put("terrace", f"warehouse/clicks/{name}", data)
        time.sleep(1.1)  # The store's times are whole seconds; the marker must be newer than its data.
        self.client.put("terrace", "warehouse/clicks/_SUCCESS", b"")


if __name__ == "__main__":
    sys.exit(main())
