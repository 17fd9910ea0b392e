"""The catalog started as its pod starts it, without a kubelet: the image's files as root file system, the chart's
arguments, configuration and certificate, the pod's user, a volume that belongs to root and the pod's group.

Clients come with the certificate to trust and the name that the chart gives them.
"""

import base64
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from common import DEPLOY, NAMESPACE, Problems, identity, render, run

BINARY = os.environ["TERRACE_BINARY"]
LACKING = 77
LIMIT = 60
USER = 65532


def prepare(root: Path, found: dict[str, dict]) -> list[str]:
    """Lays the pod's volumes into the root file system; the arguments of its container."""
    pod = found[f"StatefulSet {NAMESPACE}/terrace-catalog"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    config = found[f"ConfigMap {NAMESPACE}/terrace-catalog"]["data"]
    secret = found[f"Secret {NAMESPACE}/terrace-catalog-tls"]["data"]
    volumes = {
        "config": config,
        "tls": {name: base64.b64decode(text).decode() for name, text in secret.items()},
        "api": {"token": "none", "ca.crt": base64.b64decode(secret["ca.crt"]).decode(), "namespace": NAMESPACE},
    }
    for mount in sorted(container["volumeMounts"], key=lambda mount: mount["mountPath"]):
        place = root / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        for name, text in volumes.get(mount["name"], {}).items():
            (place / name).write_text(text)
            os.chown(place / name, 0, USER)
            os.chmod(place / name, 0o440)
        if mount["name"] in ("data", "run"):
            # As the kubelet leaves a volume with an fsGroup.
            os.chown(place, 0, USER)
            os.chmod(place, 0o2775)
    return container["args"]


def start(root: Path, arguments: list[str]) -> tuple[subprocess.Popen, int]:
    """The container's process, on a free port of the loopback address; that port, from its first line."""
    arguments = [re.sub(r"^--listen=0\.0\.0\.0:\d+$", "--listen=127.0.0.1:0", word) for word in arguments]
    process = subprocess.Popen([shutil.which("chroot"), f"--userspec={USER}:{USER}", str(root), "/usr/bin/terrace", *arguments],
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={})
    watch = threading.Timer(LIMIT, process.kill)
    watch.start()
    line = process.stdout.readline()
    watch.cancel()
    match = re.search(r"https://127\.0\.0\.1:(\d+)", line)
    if not match:
        process.kill()
        raise RuntimeError(f"the catalog does not start: {line}{process.stderr.read()}")
    return process, int(match[1])


def ask(root: Path, port: int, path: str) -> str:
    """What a client gets that trusts the pod's authority and asks for the service's name."""
    trust = ssl.create_default_context(cafile=str(root / "etc/terrace/tls/ca.crt"))
    connection = urllib.request.HTTPSHandler(context=trust)
    host = f"terrace-catalog.{NAMESPACE}.svc"
    # The name is resolved here only: the certificate is checked against it as everywhere.
    real = socket.getaddrinfo
    socket.getaddrinfo = lambda name, *rest, **more: real("127.0.0.1" if name == host else name, *rest, **more)
    try:
        with urllib.request.build_opener(connection, urllib.request.ProxyHandler({})).open(f"https://{host}:{port}{path}", timeout=LIMIT) as answer:
            return answer.read().decode()
    finally:
        socket.getaddrinfo = real


def play(problems: Problems, root: Path) -> None:
    done = run([str(DEPLOY / "image" / "rootfs.sh"), BINARY, str(root)])
    if done.returncode != 0:
        problems.add(f"rootfs.sh: {done.stderr}")
        return
    found = {identity(one): one for one in render()}
    arguments = prepare(root, found)
    for turn in ("first", "second"):
        process, port = start(root, arguments)
        try:
            for path in ("/healthz", "/readyz", "/metrics"):
                problems.check(bool(ask(root, port, path)), f"{turn} start: {path} is empty")
            listed = run(["chroot", f"--userspec={USER}:{USER}", str(root), "/usr/bin/terrace", "dataset", "list", "--json",
                          "--catalog", f"https://127.0.0.1:{port}", "--token-file", "/var/lib/terrace/data/token"])
            problems.check("certificate" in listed.stderr, f"{turn} start: a client without the authority is served")
        finally:
            began = time.monotonic()
            process.terminate()
            try:
                problems.check(process.wait(LIMIT) == 0, f"{turn} start: ends with {process.returncode} after SIGTERM")
            except subprocess.TimeoutExpired:
                process.kill()
                problems.add(f"{turn} start: SIGTERM is not heard within {time.monotonic() - began:.0f} s")
    token = root / "var/lib/terrace/data/token"
    problems.check(token.exists() and token.stat().st_mode & 0o777 == 0o600, "the admin token is not there, or not private")
    problems.check("--allow-http" not in arguments, "the pod speaks plain http")


if os.geteuid() != 0 or not shutil.which("mkfs.xfs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
    print("needs root (chroot) and xfsprogs", file=sys.stderr)
    sys.exit(LACKING)
problems = Problems()
with tempfile.TemporaryDirectory() as scratch:
    # The pod's user must get to its root.
    os.chmod(scratch, 0o755)
    play(problems, Path(scratch, "root"))
problems.end("the catalog's pod")
