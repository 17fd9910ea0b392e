#!/usr/bin/env python3
"""`terrace controller` against a real API server with a real etcd: the program, its rights, its webhooks.

    tests/kubernetes/suite.py --binary PATH/terrace

Outside of `make test`: the API server of Kubernetes is compiled from its published module (`apiserver/`; once,
about ten minutes of one processor at the lowest priority, kept in $TERRACE_TOOLS). Needs Go, etcd (Debian:
etcd-server), kubectl and openssl. No controller manager and no scheduler run: nothing binds claims or pods, and
namespaces do not end. Ends with 0, or with 1 and the check that failed.
"""

import argparse
import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASE = HERE.parent.parent / "deploy" / "kubernetes" / "base"
VERSION = "1.34.2"
PATIENCE = 120
NAMESPACE = "terrace-system"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:terrace-controller"
# What a node waits for, and the rights that the chart gives for it (controller.startupTaint).
DRIVERS = ("data.terrace.io", "local.terrace.io")
UNTAINT = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "untaint"}, "rules": [
    {"apiGroups": ["storage.k8s.io"], "resources": ["csinodes"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}]}


def api_server() -> Path:
    """The program, compiled when it is not there."""
    tools = Path(os.environ.get("TERRACE_TOOLS") or Path.home() / ".cache" / "terrace" / "tools")
    program = tools / f"kube-apiserver-{VERSION}" / "kube-apiserver"
    if not program.exists():
        print(f"kube-apiserver {VERSION} is compiled, once", flush=True)
        program.parent.mkdir(parents=True, exist_ok=True)
        made = program.with_suffix(".new")
        subprocess.run(["nice", "-n", "19", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(made), "."],
                       cwd=HERE / "apiserver", check=True)
        made.rename(program)
    return program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """Processes, and requests of the API server as its administrator."""

    def __init__(self, place: Path, binary: str):
        self.place, self.binary = place, binary
        self.running: dict[str, subprocess.Popen] = {}
        self.port, self.etcd, self.peer, self.hooks = (free_port() for _ in range(4))
        self.url = f"https://127.0.0.1:{self.port}"
        self.checks = 0
        self.context = ssl._create_unverified_context()  # The server's certificate is made by itself.

    def spawn(self, name: str, argv: list, **more) -> subprocess.Popen:
        log = open(self.place / f"{name}.log", "ab")
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

    def until(self, what: str, path: str, is_so) -> dict:
        """Waits until an object (none when there is none) is as it should be."""
        end = time.monotonic() + PATIENCE
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
                               *words], input=text, text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, f"kubectl {words}: {done.stderr}"
        return done.stdout

    def terrace(self, *words: str) -> str:
        done = subprocess.run([self.binary, "--log=error", *words], text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, f"terrace {words}: {done.stderr}"
        return done.stdout


def start_etcd(world: World) -> None:
    client, peer = f"http://127.0.0.1:{world.etcd}", f"http://127.0.0.1:{world.peer}"
    world.spawn("etcd", ["etcd", "--data-dir", world.place / "etcd", "--unsafe-no-fsync",
                         "--listen-client-urls", client, "--advertise-client-urls", client,
                         "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                         "--initial-cluster", f"default={peer}"])


def start_api(world: World, program: Path) -> None:
    key = world.place / "account.key"
    if not key.exists():
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        tokens = ['admin,admin,admin,"system:masters"', f'controller,{ACCOUNT},controller,']
        (world.place / "tokens.csv").write_text("\n".join(tokens) + "\n")
    world.spawn("api", [
        program, f"--etcd-servers=http://127.0.0.1:{world.etcd}", f"--secure-port={world.port}",
        "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--cert-dir={world.place}/certs",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-signing-key-file={key}",
        f"--service-account-key-file={key}", f"--token-auth-file={world.place}/tokens.csv",
        "--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",
        # Both wait for the controller manager, which does not run.
        "--disable-admission-plugins=ServiceAccount,StorageObjectInUseProtection"])
    end = time.monotonic() + PATIENCE
    while not ready(world):
        assert world.running["api"].poll() is None, world.log("api")[-2000:]
        assert time.monotonic() < end, world.log("api")[-2000:]
        time.sleep(0.3)


def ready(world: World) -> bool:
    request = urllib.request.Request(world.url + "/readyz", headers={"Authorization": "Bearer admin"})
    try:
        with urllib.request.urlopen(request, context=world.context, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def certificates(world: World) -> str:
    """A root and a certificate of the webhooks; the root in base64."""
    place = world.place / "tls"
    place.mkdir()
    (place / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for words in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=root -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=webhooks -keyout tls.key -out tls.csr",
        "x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out tls.crt",
    ):
        subprocess.run(["openssl", *words.split()], cwd=place, check=True, capture_output=True)
    return base64.b64encode((place / "ca.pem").read_bytes()).decode()


def start_controller(world: World, *more: str) -> None:
    token = world.place / "controller.token"
    token.write_text("controller")
    world.spawn("controller", [
        world.binary, "--log=debug", "controller", f"--kube-api={world.url}", f"--kube-token-file={token}",
        f"--kube-ca-file={world.place}/certs/apiserver.crt", f"--namespace={NAMESPACE}", f"--catalog={world.catalog}",
        f"--token-file={world.place}/catalog/token", f"--webhook-listen=127.0.0.1:{world.hooks}",
        f"--webhook-cert={world.place}/tls/tls.crt", f"--webhook-key={world.place}/tls/tls.key",
        *(f"--untaint-after={driver}" for driver in DRIVERS), *more])


def start_catalog(world: World) -> None:
    port = free_port()
    world.catalog = f"http://127.0.0.1:{port}"
    world.spawn("catalog", [world.binary, "catalog", "serve", f"--data={world.place}/catalog",
                            f"--listen=127.0.0.1:{port}"])
    end = time.monotonic() + PATIENCE
    while not (world.place / "catalog" / "token").exists():
        assert time.monotonic() < end, world.log("catalog")
        time.sleep(0.1)
    world.args = [f"--catalog={world.catalog}", f"--token-file={world.place}/catalog/token"]


def publish(world: World, day: int) -> None:
    """One more partition, said to be complete: a version."""
    place = world.place / "lake" / "clicks" / f"day={day}"
    place.mkdir(parents=True)
    (place / "part-0.csv").write_text(f"a,b\n{day},2\n")
    token = (world.place / "catalog" / "token").read_text().split()[0]
    batch = {"mode": "replace_table", "source": f"file://{world.place}/lake/clicks"}
    request = urllib.request.Request(
        f"{world.catalog}/api/v1/datasets/ads.clicks/batches/day-{day}", method="PUT", data=json.dumps(batch).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 201, answer.status
    except urllib.error.HTTPError as refused:
        sys.exit(f"the catalog refuses the batch: {refused.read().decode()}")


def install(world: World) -> None:
    world.kubectl("apply", "-f", str(BASE / "namespace.yaml"))
    definition = world.terrace("controller", "--print-crd")
    world.kubectl("apply", "-f", "-", text=definition)
    world.kubectl("wait", "--for=condition=Established", "crd/datasets.terrace.io", "--timeout=60s")
    world.passed("the definition is taken and established")
    world.kubectl("apply", "-f", str(BASE / "controller.yaml"))
    world.kubectl("apply", "-f", "-", text=json.dumps(UNTAINT))
    world.kubectl("create", "clusterrolebinding", "untaint", "--clusterrole=untaint",
                  f"--serviceaccount={NAMESPACE}:terrace-controller")
    world.passed("the controller's objects and rights are taken")
    root = certificates(world)
    hooks = [json.loads(world.kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", text=text))
             for text in (BASE / "controller.yaml").read_text().split("\n---\n") if "WebhookConfiguration" in text]
    assert len(hooks) == 2, "two configurations"
    for hook in hooks:
        for one in hook["webhooks"]:
            path = one["clientConfig"]["service"]["path"]
            one["clientConfig"] = {"url": f"https://127.0.0.1:{world.hooks}{path}", "caBundle": root}
            # Here a webhook that cannot be reached must not pass for one that allows.
            one["failurePolicy"] = "Fail"
        world.kubectl("apply", "-f", "-", text=json.dumps(hook))


RESOURCES = "/apis/terrace.io/v1alpha1/namespaces/{}/datasets"
CLAIMS = "/api/v1/namespaces/{}/persistentvolumeclaims"


def resource(name: str, spec: dict) -> dict:
    return {"apiVersion": "terrace.io/v1alpha1", "kind": "Dataset", "metadata": {"name": name}, "spec": spec}


def namespace(world: World, name: str, labels: dict, annotations: dict) -> None:
    world.make("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels, "annotations": annotations}})


def datasets(world: World) -> None:
    namespace(world, "team", {}, {"terrace.io/register": "ads"})
    spec = {"source": f"file://{world.place}/lake/clicks", "format": "csv", "sync": {"completion": "call"}}
    path = RESOURCES.format("team")

    def state(wanted):
        return lambda found: found is not None and found.get("status", {}).get("state") == wanted

    end = time.monotonic() + PATIENCE
    while True:  # The webhook answers once it listens.
        status, answer = world.ask("POST", path, resource("hr.salaries", spec))
        if "may not register" in answer.get("message", ""):
            break
        assert time.monotonic() < end, f"{status} {answer} {world.log('controller')[-2000:]}"
        if status == 201:
            world.ask("DELETE", f"{path}/hr.salaries")
        time.sleep(0.3)
    world.passed("a resource is refused before it is kept")
    status, answer = world.ask("POST", path, resource("ads.odd", {"source": "file:///x", "format": "odd"}))
    assert status == 422, answer
    world.passed("the schema refuses what the parser would refuse")
    world.make(path, resource("ads.clicks", spec))
    world.until("a resource registers its dataset", f"{path}/ads.clicks", state("Pending"))
    publish(world, 1)
    found = world.until("its first version is shown", f"{path}/ads.clicks", state("Ready"))
    assert found["status"]["version"] == 1 and found["status"]["conditions"][0]["status"] == "True", found
    managers = {one["manager"] for one in found["metadata"]["managedFields"] if one.get("subresource") == "status"}
    assert managers == {"terrace-controller"}, managers
    table = world.kubectl("get", "datasets", "-n", "team")
    assert "Ready" in table and "VERSION" in table, table
    world.passed("kubectl shows it")
    status, _ = world.ask("PATCH", f"{path}/ads.clicks", {"status": {"version": 99}}, "application/merge-patch+json")
    kept = world.ask("GET", f"{path}/ads.clicks")[1]
    assert status == 200 and kept["status"]["version"] == 1, kept
    world.passed("who writes a resource writes no status")
    namespace(world, "reader", {"terrace.io/datasets": "ads"}, {})
    world.until("a dataset appears where it is asked for", RESOURCES.format("reader") + "/ads.clicks", state("Ready"))
    claim = world.until("a claim is made", CLAIMS.format("reader") + "/ads.clicks", lambda found: found is not None)
    world.volume = claim["spec"]["volumeName"]
    volume = world.ask("GET", f"/api/v1/persistentvolumes/{world.volume}")[1]
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain", volume


def pod(mount: str, owner: str | None = None) -> dict:
    metadata = {"generateName": "train-", "annotations": {"terrace.io/mount": mount}}
    if owner:
        metadata["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": owner,
                                        "controller": True}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": [{"name": "main", "image": "x"}]}}


def shown(made: dict) -> list[str]:
    volumes = made["spec"].get("volumes", [])
    return [one["csi"]["volumeAttributes"]["dataset"] for one in volumes if "csi" in one]


def pods(world: World) -> None:
    path = "/api/v1/namespaces/reader/pods"
    job = "00000000-0000-4000-8000-000000000001"
    made = world.make(path, pod("ads.clicks:/data/clicks", job))
    mounts = made["spec"]["containers"][0]["volumeMounts"]
    assert shown(made) == ["ads.clicks@v1"] and mounts[0]["mountPath"] == "/data/clicks", made["spec"]
    world.passed("a pod gets its dataset")
    publish(world, 2)
    newer = world.make(path, pod("ads.clicks"))
    assert shown(newer) == ["ads.clicks@v2"], newer["spec"]
    again = world.make(path, pod("ads.clicks:/data/clicks", job))
    assert shown(again) == ["ads.clicks@v1"], again["spec"]
    world.passed("all pods of a job see one version, other pods the latest")
    for bad in ("ads.clicks:/data/../etc", "ads.clicks:/etc", f"ads.{'x' * 300}:/d", "ads.none:/d", "a:b:c"):
        status, answer = world.ask("POST", path, pod(bad))
        assert status in (400, 403, 422) and "terrace.io/mount" in answer["message"], f"{bad}: {status} {answer}"
    world.passed("hostile annotations are refused")
    before = len(world.ask("GET", "/api/v1/namespaces/reader/configmaps")[1]["items"])
    status, dry = world.ask("POST", path + "?dryRun=All", pod("ads.clicks", job[:-1] + "2"))
    after = len(world.ask("GET", "/api/v1/namespaces/reader/configmaps")[1]["items"])
    assert status == 201 and shown(dry) == ["ads.clicks@v2"] and before == after, dry
    world.passed("a dry run keeps nothing")
    own = world.make(f"/api/v1/namespaces/{NAMESPACE}/pods", pod("ads.clicks"))
    assert shown(own) == [], own["spec"]
    world.passed("pods of the controller's namespace are left alone")


def faults(world: World, program: Path) -> None:
    path = RESOURCES.format("reader") + "/ads.clicks"

    def version(wanted):
        return lambda found: found is not None and found.get("status", {}).get("version") == wanted

    world.until("a new version is shown", path, version(2))
    world.kill("controller")
    publish(world, 3)
    start_controller(world)
    world.until("a controller that was killed goes on", path, version(3))
    world.kill("api")
    world.kill("etcd")
    publish(world, 4)
    start_etcd(world)
    start_api(world, program)
    world.until("an API server that was killed is caught up with", path, version(4))


def removal(world: World) -> None:
    world.patch("/api/v1/namespaces/reader", {"metadata": {"labels": {"terrace.io/datasets": None}}})
    gone = lambda found: found is None  # noqa: E731
    world.until("a claim goes with the wish", CLAIMS.format("reader") + "/ads.clicks", gone)
    world.until("the resource goes with the wish", RESOURCES.format("reader") + "/ads.clicks", gone)
    world.ask("DELETE", RESOURCES.format("team") + "/ads.clicks")
    assert '"latest": 4' in world.terrace("dataset", "show", "ads.clicks", "--json", *world.args)
    world.passed("the catalog has lost nothing")


def scratch(world: World) -> None:
    world.make("/api/v1/nodes", {"metadata": {"name": "n1"}})
    expression = {"key": "topology.local.terrace.io/node", "operator": "In", "values": ["gone"]}
    world.make("/api/v1/persistentvolumes", {
        "metadata": {"name": "lost", "annotations": {"terrace.io/when-node-gone": "delete"},
                     "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"]},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                 "persistentVolumeReclaimPolicy": "Delete",
                 "csi": {"driver": "local.terrace.io", "volumeHandle": "lost"},
                 "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}})
    path = "/api/v1/persistentvolumes/lost"
    marked = lambda found: "terrace.io/node-gone-since" in found["metadata"]["annotations"]  # noqa: E731
    world.until("a scratch volume of a lost node is marked, and stays", path, marked)
    world.kill("controller")
    start_controller(world, "--clean-scratch", "--scratch-gone-after=1s")
    world.until("it goes when that is asked for", path, lambda found: found is None)


def taints(world: World) -> None:
    """A node that waits; the kubelet's part is played by the administrator."""
    ours = {"key": "terrace.io/agent-not-ready", "effect": "NoSchedule"}
    other = {"key": "example.com/other", "value": "a", "effect": "NoSchedule"}
    world.make("/api/v1/nodes", {"metadata": {"name": "n2"}, "spec": {"taints": [ours, other]}})
    drivers = [{"name": name, "nodeID": "n2", "topologyKeys": []} for name in DRIVERS]
    path = "/apis/storage.k8s.io/v1/csinodes"
    world.make(path, {"metadata": {"name": "n2"}, "spec": {"drivers": drivers[:1]}})
    world.make("/api/v1/nodes", {"metadata": {"name": "n3"}, "spec": {"taints": [ours]}})
    world.make(path, {"metadata": {"name": "n3"}, "spec": {"drivers": drivers}})
    keys = lambda found: [one["key"] for one in found["spec"].get("taints", [])]  # noqa: E731
    freed = lambda found: ours["key"] not in keys(found)  # noqa: E731
    world.until("a node with its drivers is freed", "/api/v1/nodes/n3", freed)
    assert ours["key"] in keys(world.ask("GET", "/api/v1/nodes/n2")[1]), "freed without its drivers"
    world.patch(f"{path}/n2", {"spec": {"drivers": drivers}})
    found = world.until("and one that waited, when they come", "/api/v1/nodes/n2", freed)
    assert other["key"] in keys(found), found


def rights(world: World, since: int) -> None:
    """Fails when the API server has refused anything since that place of the controller's log."""
    refused = [line for line in world.log("controller")[since:].splitlines() if "403 Forbidden" in line]
    assert not refused, f"a right is missing: {refused[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the terrace to test")
    binary = str(Path(parser.parse_args().binary).resolve())
    for needed in ("etcd", "kubectl", "openssl"):
        if not shutil.which(needed):
            sys.exit(f"SKIP tests/kubernetes: there is no {needed}")
    if not shutil.which("go") and not api_server().exists():
        sys.exit("SKIP tests/kubernetes: there is no go to compile the API server with")
    program = api_server()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="terrace-kubernetes-") as directory:
        world = World(Path(directory), binary)
        try:
            start_etcd(world)
            start_api(world, program)
            start_catalog(world)
            (world.place / "lake").mkdir()
            world.terrace("sync", "add", f"file://{world.place}/lake", "--namespace", "ads", "--layout", "flat",
                          *world.args)
            install(world)
            start_controller(world)
            datasets(world)
            pods(world)
            rights(world, 0)
            faults(world, program)
            # An API server that has just started refuses everything until it has read the rights.
            since = len(world.log("controller"))
            removal(world)
            scratch(world)
            taints(world)
            rights(world, since)
            world.passed("no right is missing")
        except BaseException:
            sys.stderr.write(world.log("controller")[-4000:] if "controller" in world.running else "")
            raise
        finally:
            world.end()
    print(f"{world.checks} checks against kube-apiserver {VERSION}: passed, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
