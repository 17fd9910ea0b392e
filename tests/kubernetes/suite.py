#!/usr/bin/env python3
"""`terrace controller` against a real API server with a real etcd: the program, its rights, its webhooks.

    tests/kubernetes/suite.py --binary PATH/terrace

Outside of `make test`: Kubernetes is compiled from its published module (`programs/`; once, twenty minutes of
one processor at the lowest priority, kept in $TERRACE_TOOLS). Needs Go, etcd (Debian:
etcd-server), kubectl and openssl. No controller manager and no scheduler run: nothing binds claims or pods, and
namespaces do not end. Ends with 0, or with 1 and the check that failed.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from world import PATIENCE, VERSION, World, free_port, kubernetes

HERE = Path(__file__).resolve().parent
BASE = HERE.parent.parent / "deploy" / "kubernetes" / "base"
NAMESPACE = "terrace-system"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:terrace-controller"
# What a node waits for, and the rights that the chart gives for it (controller.startupTaint).
DRIVERS = ("data.terrace.io", "local.terrace.io")
UNTAINT = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "untaint"}, "rules": [
    {"apiGroups": ["storage.k8s.io"], "resources": ["csinodes"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}]}


class Suite(World):
    """An API server on the loopback address, a catalog and the controller."""

    def __init__(self, place: Path, binary: str):
        super().__init__(place, "127.0.0.1", free_port())
        self.binary, self.hooks = binary, free_port()

    def terrace(self, *words: str) -> str:
        done = subprocess.run([self.binary, "--log=error", *words], text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, f"terrace {words}: {done.stderr}"
        return done.stdout


def start_api(world: Suite) -> None:
    world.start_api(
        "--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none",
        # Both wait for the controller manager, which does not run.
        "--disable-admission-plugins=ServiceAccount,StorageObjectInUseProtection",
        users=[f"controller,{ACCOUNT},controller,"])


def certificates(world: Suite) -> str:
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


def start_controller(world: Suite, *more: str) -> None:
    token = world.place / "controller.token"
    token.write_text("controller")
    world.spawn("controller", [
        world.binary, "--log=debug", "controller", f"--kube-api={world.url}", f"--kube-token-file={token}",
        f"--kube-ca-file={world.place}/certs/apiserver.crt", f"--namespace={NAMESPACE}", f"--catalog={world.catalog}",
        f"--token-file={world.place}/catalog/token", f"--webhook-listen=127.0.0.1:{world.hooks}",
        f"--webhook-cert={world.place}/tls/tls.crt", f"--webhook-key={world.place}/tls/tls.key",
        *(f"--untaint-after={driver}" for driver in DRIVERS), *more])


def start_catalog(world: Suite) -> None:
    port = free_port()
    world.catalog = f"http://127.0.0.1:{port}"
    world.spawn("catalog", [world.binary, "catalog", "serve", f"--data={world.place}/catalog",
                            f"--listen=127.0.0.1:{port}"])
    end = time.monotonic() + PATIENCE
    while not (world.place / "catalog" / "token").exists():
        assert time.monotonic() < end, world.log("catalog")
        time.sleep(0.1)
    world.args = [f"--catalog={world.catalog}", f"--token-file={world.place}/catalog/token"]


def publish(world: Suite, day: int) -> None:
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


def install(world: Suite) -> None:
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


def namespace(world: Suite, name: str, labels: dict, annotations: dict) -> None:
    world.make("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels, "annotations": annotations}})


def datasets(world: Suite) -> None:
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


def pods(world: Suite) -> None:
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


def faults(world: Suite) -> None:
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
    world.start_etcd()
    start_api(world)
    world.until("an API server that was killed is caught up with", path, version(4))


def removal(world: Suite) -> None:
    world.patch("/api/v1/namespaces/reader", {"metadata": {"labels": {"terrace.io/datasets": None}}})
    gone = lambda found: found is None  # noqa: E731
    world.until("a claim goes with the wish", CLAIMS.format("reader") + "/ads.clicks", gone)
    world.until("the resource goes with the wish", RESOURCES.format("reader") + "/ads.clicks", gone)
    world.ask("DELETE", RESOURCES.format("team") + "/ads.clicks")
    assert '"latest": 4' in world.terrace("dataset", "show", "ads.clicks", "--json", *world.args)
    world.passed("the catalog has lost nothing")


def scratch(world: Suite) -> None:
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


def taints(world: Suite) -> None:
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


def rights(world: Suite, since: int) -> None:
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
    if not shutil.which("go"):
        sys.exit("SKIP tests/kubernetes: there is no go to compile the API server with")
    kubernetes()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="terrace-kubernetes-") as directory:
        world = Suite(Path(directory), binary)
        try:
            world.start_etcd()
            start_api(world)
            start_catalog(world)
            (world.place / "lake").mkdir()
            world.terrace("sync", "add", f"file://{world.place}/lake", "--namespace", "ads", "--layout", "flat",
                          *world.args)
            install(world)
            start_controller(world)
            datasets(world)
            pods(world)
            rights(world, 0)
            faults(world)
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
