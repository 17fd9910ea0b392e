"""What the suites of this directory share: processes with logs, requests of an API server, counted checks."""

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

VERSION = "1.34.2"
# Seconds until something that should come about counts as not coming.
PATIENCE = 120
HERE = Path(__file__).resolve().parent


def tools() -> Path:
    """Where what takes long to make is kept."""
    return Path(os.environ.get("TERRACE_TOOLS") or Path.home() / ".cache" / "terrace" / "tools")


def kubernetes() -> Path:
    """The programs of Kubernetes as one, compiled when it is not there."""
    program = tools() / f"kubernetes-{VERSION}" / "kubernetes"
    if not program.exists():
        print(f"Kubernetes {VERSION} is compiled, once", flush=True)
        stamp = "k8s.io/component-base/version"
        major, minor, _ = VERSION.split(".")
        flags = f"-s -w -X {stamp}.gitVersion=v{VERSION} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
        compiled(program, HERE / "programs", ".", flags)
    return program


def compiled(program: Path, module: Path, package: str, flags: str = "-s -w", **environment: str) -> None:
    """Compiles a Go program, at the lowest priority, and puts it there when it is whole."""
    program.parent.mkdir(parents=True, exist_ok=True)
    made = program.with_suffix(".new")
    subprocess.run(["nice", "-n", "19", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(made), package],
                   cwd=module, check=True, env={**os.environ, **environment})
    made.rename(program)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """Processes, and requests of the API server as its administrator."""

    def __init__(self, place: Path, host: str, port: int):
        self.place = place
        self.running: dict[str, subprocess.Popen] = {}
        self.etcd, self.peer = free_port(), free_port()
        self.url = f"https://{host}:{port}"
        self.checks = 0
        self.context = ssl._create_unverified_context()  # The server's certificate is made by itself.

    def spawn(self, name: str, argv: list, **more) -> subprocess.Popen:
        with open(self.place / f"{name}.log", "ab") as log:
            process = subprocess.Popen([str(word) for word in argv], stdout=log, stderr=log,
                                       stdin=subprocess.DEVNULL, **more)
        self.running[name] = process
        return process

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        for name in list(self.running):
            self.kill(name)

    def log(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text(errors="replace")

    def ask(self, method: str, path: str, body=None, kind="application/json"):
        """Status and answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method,
                                         headers={"Authorization": "Bearer admin", "Content-Type": kind})
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=20) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                return error.code, json.loads(text)
            except ValueError:
                return error.code, {"message": text}
        except OSError as error:
            return 0, {"message": str(error)}

    def make(self, path: str, body: dict) -> dict:
        status, made = self.ask("POST", path, body)
        assert status in (200, 201), f"POST {path}: {status} {made}"
        return made

    def patch(self, path: str, body: dict) -> None:
        status, answer = self.ask("PATCH", path, body, "application/merge-patch+json")
        assert status == 200, f"PATCH {path}: {status} {answer}"

    def until(self, what: str, path: str, is_so, patience: float = PATIENCE) -> dict:
        """Waits until an object (none when there is none) is as it should be."""
        end = time.monotonic() + patience
        while True:
            status, found = self.ask("GET", path)
            found = found if status == 200 else None
            if status in (200, 404) and is_so(found):
                self.passed(what)
                return found
            assert time.monotonic() < end, f"{what}: {path} stays {found}"
            time.sleep(0.2)

    def passed(self, what: str) -> None:
        self.checks += 1
        print(f"ok {what}", flush=True)

    def kubectl(self, *words: str, text: str = "") -> str:
        done = subprocess.run(["kubectl", f"--server={self.url}", "--insecure-skip-tls-verify=true", "--token=admin",
                               *words], input=text, text=True, capture_output=True, timeout=2 * PATIENCE)
        assert done.returncode == 0, f"kubectl {words}: {done.stderr}"
        return done.stdout

    def start_etcd(self) -> None:
        """The store of the API server, which need not outlive anything."""
        client, peer = f"http://127.0.0.1:{self.etcd}", f"http://127.0.0.1:{self.peer}"
        self.spawn("etcd", ["etcd", "--data-dir", self.place / "etcd", "--unsafe-no-fsync",
                            "--listen-client-urls", client, "--advertise-client-urls", client,
                            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                            "--initial-cluster", f"default={peer}"])

    def start_api(self, *words: str, users: list[str]) -> None:
        """An API server that knows users (lines of a token file) by their tokens; waits until it is ready."""
        key = self.place / "account.key"
        if not key.exists():
            subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
            (self.place / "tokens.csv").write_text("\n".join(['admin,admin,admin,"system:masters"', *users]) + "\n")
        host, port = self.url.removeprefix("https://").split(":")
        self.spawn("api", [
            kubernetes(), "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self.etcd}", f"--secure-port={port}",
            f"--bind-address={host}", f"--advertise-address={host}", f"--cert-dir={self.place}/certs",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}", f"--token-auth-file={self.place}/tokens.csv",
            "--authorization-mode=Node,RBAC", *words])
        end = time.monotonic() + PATIENCE
        while not self.is_ready():
            assert self.running["api"].poll() is None, self.log("api")[-2000:]
            assert time.monotonic() < end, self.log("api")[-2000:]
            time.sleep(0.3)

    def is_ready(self) -> bool:
        request = urllib.request.Request(self.url + "/readyz", headers={"Authorization": "Bearer admin"})
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False
