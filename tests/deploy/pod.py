"""Pods started without a kubelet: the image's files as root file system, the chart's arguments, configuration and
certificate, the pod's user, volumes that belong to root and the pod's group.

    catalog          clients come with the certificate to trust and the name that the chart gives them
    csi-controller   its socket takes a connection, of the sidecars' user too
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
import urllib.request
from pathlib import Path

from common import DEPLOY, NAMESPACE, Problems, identity, render, run

BINARY = os.environ["TERRACE_BINARY"]
LACKING = 77
LIMIT = 60
USER = 65532


def prepare(root: Path, found: dict[str, dict], component: str) -> list[str]:
    """Lays a pod's volumes into the root file system; the arguments of its first container."""
    name = f"{NAMESPACE}/terrace-{component}"
    container = found[f"StatefulSet {name}"]["spec"]["template"]["spec"]["containers"][0]
    secret = {key: base64.b64decode(text).decode()
              for key, text in found[f"Secret {NAMESPACE}/terrace-catalog-tls"]["data"].items()}
    volumes = {
        "config": found.get(f"ConfigMap {name}", {}).get("data", {}),
        "tls": secret,
        "api": {"token": "none", "ca.crt": secret["ca.crt"], "namespace": NAMESPACE},
        "catalog-access": {"token": "none", "ca.crt": secret["ca.crt"]},
    }
    for mount in sorted(container["volumeMounts"], key=lambda mount: mount["mountPath"]):
        place = root / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        for file, text in volumes.get(mount["name"], {}).items():
            (place / file).write_text(text)
            os.chown(place / file, 0, USER)
            os.chmod(place / file, 0o440)
        if mount["name"] not in volumes:
            # As the kubelet leaves a volume with an fsGroup.
            os.chown(place, 0, USER)
            os.chmod(place, 0o2775)
    return container["args"]


def spawn(root: Path, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen:
    """The container's process, as the pod's user."""
    return subprocess.Popen([shutil.which("chroot"), f"--userspec={USER}:{USER}", str(root), "/usr/bin/terrace", *arguments],
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def end(problems: Problems, what: str, process: subprocess.Popen) -> None:
    """SIGTERM, as the kubelet sends it."""
    process.terminate()
    try:
        problems.check(process.wait(LIMIT) == 0, f"{what}: ends with {process.returncode} after SIGTERM")
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        problems.add(f"{what}: SIGTERM is not heard within {LIMIT} s")


def start(root: Path, arguments: list[str]) -> tuple[subprocess.Popen, int]:
    """The container's process, on a free port of the loopback address; that port, from its first line."""
    arguments = [re.sub(r"^--listen=0\.0\.0\.0:\d+$", "--listen=127.0.0.1:0", word) for word in arguments]
    process = spawn(root, arguments, {})
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


def catalog(problems: Problems, root: Path, found: dict[str, dict]) -> None:
    arguments = prepare(root, found, "catalog")
    problems.check("--allow-http" not in arguments, "the catalog's pod speaks plain http")
    for turn in ("first", "second"):
        what = f"catalog, {turn} start"
        process, port = start(root, arguments)
        try:
            for path in ("/healthz", "/readyz", "/metrics"):
                problems.check(bool(ask(root, port, path)), f"{what}: {path} is empty")
            listed = run(["chroot", f"--userspec={USER}:{USER}", str(root), "/usr/bin/terrace", "dataset", "list", "--json",
                          "--catalog", f"https://127.0.0.1:{port}", "--token-file", "/var/lib/terrace/data/token"])
            problems.check("certificate" in listed.stderr, f"{what}: a client without the authority is served")
        finally:
            end(problems, what, process)
    token = root / "var/lib/terrace/data/token"
    problems.check(token.exists() and token.stat().st_mode & 0o777 == 0o600, "the admin token is not there, or not private")


def controller(problems: Problems, root: Path, found: dict[str, dict]) -> None:
    arguments = prepare(root, found, "csi-controller")
    place = root / "csi/csi.sock"
    for turn in ("first", "second"):
        what = f"csi-controller, {turn} start"
        process = spawn(root, arguments, {"TERRACE_CATALOG": "https://catalog.invalid:7420"})
        try:
            for _ in range(LIMIT * 10):
                with socket.socket(socket.AF_UNIX) as client:
                    if process.poll() is not None or client.connect_ex(str(place)) == 0:
                        break
                threading.Event().wait(0.1)
            if process.poll() is not None:
                problems.add(f"{what}: ended: {process.stderr.read().strip()}")
                return
            about = place.stat()
            problems.check(about.st_uid == USER and about.st_mode & 0o777 == 0o600, f"{what}: its socket is another's too")
        finally:
            end(problems, what, process)


if os.geteuid() != 0 or not shutil.which("mkfs.xfs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
    print("needs root (chroot) and xfsprogs", file=sys.stderr)
    sys.exit(LACKING)
problems = Problems()
with tempfile.TemporaryDirectory() as scratch:
    # The pod's user must get to its root.
    os.chmod(scratch, 0o755)
    made = run([str(DEPLOY / "image" / "rootfs.sh"), BINARY, f"{scratch}/root"])
    problems.check(made.returncode == 0, f"rootfs.sh: {made.stderr}")
    if made.returncode == 0:
        rendered = {identity(one): one for one in render()}
        for pod in (catalog, controller):
            pod(problems, Path(scratch, "root"), rendered)
problems.end("the pods of catalog and csi-controller")
