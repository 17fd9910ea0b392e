"""What must hold on the cluster, in the order of docs/INSTALL.md; each check leaves the cluster for the next."""

import os
import signal
from pathlib import Path

import yaml

from cluster import ARCHIVE, IMAGE, NAMESPACE, TAINT, TEAM, VOLUMES, Store, digest
from copies import cold_store, scratch_snapshots, snapshots, stubs
from images import DEPLOY, WORKLOAD
from machine import NODE, Cluster
from pods import DIGEST, READER, claim, claimed, inline, pod, storage_class
from steps import answers, apply, gone, helm, merged, path, phase, running, said, terrace, wait_for
from world import PATIENCE

MIB = 1 << 20
# Seconds that images, certificates and probes of a whole release may take on a busy machine.
INSTALL = 900
# What INSTALL.md tells to add on a cluster without a default storage class, and what its section "A cluster" adds.
VALUES = {
    "catalog": {"persistence": {"storageClass": "terrace-by-hand"}},
    # An image of ext4 grows only under CAP_SYS_RESOURCE, which not every machine has.
    "csi": {"controller": {"persistence": {"storageClass": "terrace-by-hand"}},
            "data": {"directories": [VOLUMES], "snapshots": True, "cold": [ARCHIVE]},
            "local": {"limits": "image-xfs", "snapshots": True}},
    "controller": {"startupTaint": True},
    "image": {"tag": "0.1.0"},
}


def values(*more: dict) -> dict:
    """The file of the procedure, and what is set beside it."""
    found = yaml.safe_load((DEPLOY / "helm" / "single-node.yaml").read_text())
    for one in (VALUES, *more):
        found = merged(found, one)
    return found


def install(cluster: Cluster, store: Store) -> None:
    """Steps 1 to 4."""
    taints = cluster.ask("GET", f"/api/v1/nodes/{NODE}")[1]["spec"]["taints"]
    assert any(one["key"] == TAINT["key"] for one in taints), taints
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged")
    secret = [f"--from-literal={name}={value}" for name, value in store.environment.items() if name.startswith("AWS_")]
    cluster.kubectl("-n", NAMESPACE, "create", "secret", "generic", "stores", *secret)
    for directory in (*(f"/var/lib/terrace/{name}" for name in ("catalog", "csi-controller")),
                      *(f"{VOLUMES}/{name}" for name in ("checkpoints", "results"))):
        Path(directory).mkdir(parents=True)
    cluster.kubectl("apply", "-f", str(DEPLOY / "helm" / "single-node-volumes.yaml"))
    with helm(cluster) as connection:
        connection.install(DEPLOY / "helm" / "terrace", "terrace", values(), wait="watcher", timeout=INSTALL)
    cluster.passed("the chart is installed and everything in it is ready")
    drivers = cluster.kubectl("get", "csinode", "-o", "jsonpath={.items[*].spec.drivers[*].name}").split()
    assert sorted(drivers) == ["data.terrace.io", "local.terrace.io"], drivers
    cluster.passed("the kubelet has registered both drivers")
    freed = lambda found: not any(one["key"] == TAINT["key"] for one in found["spec"].get("taints", []))  # noqa: E731
    cluster.until("the startup taint is gone", f"/api/v1/nodes/{NODE}", freed)
    cluster.kubectl("create", "namespace", TEAM)
    cluster.kubectl("-n", TEAM, "create", "serviceaccount", "reader")


def found_by_itself(cluster: Cluster, store: Store) -> None:
    """Step 5."""
    store.publish(range(1, 4))
    terrace(cluster, "sync", "add", "s3://terrace/warehouse", "--namespace", "ads")
    wait_for("the table is not found", lambda: "ads.clicks" in terrace(cluster, "dataset", "list"), 2 * PATIENCE)
    cluster.passed("the catalog finds the table in the store")


def annotated(cluster: Cluster, store: Store) -> None:
    """Step 6: the example, with this table, an image that is here, and a command that it has."""
    text = (DEPLOY / "examples" / "annotation.yaml").read_text().replace("ads.clicks@v12", "ads.clicks@v1")
    job = yaml.safe_load(text)
    container = job["spec"]["template"]["spec"]["containers"][0]
    container.update(image=WORKLOAD, command=["sh", "-c", DIGEST.format("/data/clicks")])
    apply(cluster, job)
    done = lambda found: found is not None and found["status"].get("succeeded") == 1  # noqa: E731
    cluster.until("a job reads the table that its annotation names",
                  f"/apis/batch/v1/namespaces/{TEAM}/jobs/train-annotated", done, 2 * PATIENCE)
    log = cluster.kubectl("-n", TEAM, "logs", "job/train-annotated").strip()
    assert log == digest(3), log
    cluster.passed("and its bytes are those of the store")


def dataset_claim(cluster: Cluster, store: Store) -> None:
    """`latest` is resolved once for a claim, whatever is published afterwards."""
    apply(cluster, storage_class("clicks", {"dataset": "ads.clicks"}), claim("clicks", "clicks", "ReadOnlyMany", "1Gi"))
    cluster.until("a claim of a dataset is bound", path("clicks", "persistentvolumeclaims"), phase("Bound"))
    apply(cluster, pod("one", DIGEST.format("/data"), {"/data": claimed("clicks", True)}))
    assert said(cluster, "a pod reads the claim", "one") == digest(3)
    store.publish(range(4, 5))
    wait_for("the next version is not found",
             lambda: '"latest": 2' in terrace(cluster, "dataset", "show", "ads.clicks", "--json"), 2 * PATIENCE)
    apply(cluster, pod("two", DIGEST.format("/data"), {"/data": claimed("clicks", True)}),
          claim("newer", "clicks", "ReadOnlyMany", "1Gi"),
          pod("three", DIGEST.format("/data"), {"/data": claimed("newer", True)}))
    assert said(cluster, "a second pod reads the claim", "two") == digest(3)
    cluster.passed("two pods of a claim read one version, whatever was published between them")
    assert said(cluster, "a pod reads a claim that was made later", "three") == digest(4)
    for name in ("one", "two", "three"):
        cluster.kubectl("-n", TEAM, "delete", "pod", name)
    cluster.kubectl("-n", TEAM, "delete", "pvc", "newer")
    cluster.passed("and a later claim the later one")


def inline_volume(cluster: Cluster, store: Store) -> None:
    apply(cluster, pod("inline", DIGEST.format("/data"), {"/data": inline("ads.clicks@v2")}, read_only=True))
    assert said(cluster, "a pod names its dataset itself", "inline") == digest(4)
    cluster.kubectl("-n", TEAM, "delete", "pod", "inline")


FILL = "dd if=/dev/zero of=/scratch/fill-{0} bs=1M count=4096; stat -c %s /scratch/fill-{0}; echo full; df -m /scratch | tail -n 1"


def scratch(cluster: Cluster, store: Store) -> None:
    """A directory of the node that cannot outgrow its claim, until the claim grows."""
    stay = "while [ ! -e /tmp/stop ]; do sleep 0.2; done"
    apply(cluster, claim("scratch", "terrace-scratch", "ReadWriteOnce", "320Mi"),
          pod("compile", stay, {"/scratch": claimed("scratch")}))
    running(cluster, "compile")

    def filled(number: int) -> int:
        text = cluster.kubectl("-n", TEAM, "exec", "compile", "--", "sh", "-c", f"({FILL.format(number)}) 2>&1")
        assert "No space left" in text or "quota exceeded" in text.lower(), text
        return int(text.split("\nfull")[0].split()[-1])

    first = filled(1)
    assert 160 * MIB < first <= 320 * MIB, first
    cluster.passed(f"a pod that fills its scratch volume of 320 MiB is stopped after {first >> 20} MiB")
    place = path("scratch", "persistentvolumeclaims")
    cluster.patch(place, {"spec": {"resources": {"requests": {"storage": "512Mi"}}}})
    grown = lambda found: found["status"].get("capacity", {}).get("storage") == "512Mi"  # noqa: E731
    cluster.until("a claim that asks for more gets it while a pod uses it", place, grown, 2 * PATIENCE)
    second = filled(2)
    assert first + second <= 512 * MIB and second > 96 * MIB, second
    cluster.passed(f"and the pod may write {second >> 20} MiB more")
    volume = cluster.ask("GET", place)[1]["spec"]["volumeName"]
    cluster.kubectl("-n", TEAM, "delete", "pod/compile", "pvc/scratch", f"--timeout={PATIENCE}s")
    cluster.until("the volume goes with its claim", f"/api/v1/persistentvolumes/{volume}", gone)


def directories(cluster: Cluster, store: Store) -> None:
    """One directory, written by one user's pod and read and extended by another pod."""
    user = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    write = "echo first > /shared/a && while [ ! -e /shared/b ]; do sleep 0.2; done; cat /shared/b"
    answer = "while [ ! -e /shared/a ]; do sleep 0.2; done; cat /shared/a; echo second > /shared/b.new && mv /shared/b.new /shared/b"
    apply(cluster, storage_class("checkpoints", {"directory": f"file://{VOLUMES}/checkpoints"}, allowVolumeExpansion=True),
          claim("work", "checkpoints", "ReadWriteMany", "1Gi"),
          pod("writer", write, {"/shared": claimed("work")}, security=user),
          pod("answerer", answer, {"/shared": claimed("work")}, security=user))
    assert said(cluster, "two pods write one directory", "answerer") == "first"
    assert said(cluster, "and see each other's files", "writer") == "second"
    found = list(Path(VOLUMES, "checkpoints").rglob("b"))
    assert len(found) == 1 and found[0].read_text() == "second\n", found
    cluster.passed("their files are those of the shared file system")
    place = path("work", "persistentvolumeclaims")
    cluster.patch(place, {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    grown = lambda claim: claim["status"].get("capacity", {}).get("storage") == "2Gi"  # noqa: E731
    cluster.until("a larger claim of a directory holds", place, grown, 2 * PATIENCE)
    cluster.kubectl("-n", TEAM, "delete", "pod/writer", "pod/answerer", "pvc/work", f"--timeout={PATIENCE}s")
    wait_for("the directory stays", lambda: not any(Path(VOLUMES, "checkpoints").rglob("b")))
    cluster.passed("a directory goes with its claim")


def workers() -> list[int]:
    """Processes that serve mounts, by their command line: `terrace ... node ...`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"node" in words and Path(os.fsdecode(words[0])).name == "terrace":
            found.append(int(place.name))
    return found


def reads(cluster: Cluster, name: str) -> int:
    return int(cluster.kubectl("-n", TEAM, "exec", name, "--", "sh", "-c", "cat /tmp/reads 2>/dev/null || echo 0"))


def more_reads(cluster: Cluster, name: str, count: int = 3) -> None:
    """Waits until a reader has begun and ended that many rounds more."""
    before = reads(cluster, name)
    wait_for(f"{name} reads no more", lambda: reads(cluster, name) >= before + count)


def ended(cluster: Cluster, name: str, days: int) -> int:
    """Ends a reader; how often it has read, without one failure."""
    cluster.kubectl("-n", TEAM, "exec", name, "--", "touch", "/tmp/stop")
    lines = said(cluster, f"{name} ends", name).splitlines()
    want, rounds, bad = lines[-1].split()
    assert (want, bad, len(lines)) == (digest(days), "0", 1), lines[-20:]
    cluster.kubectl("-n", TEAM, "delete", "pod", name)
    return int(rounds)


def killed_worker(cluster: Cluster, store: Store) -> None:
    apply(cluster, pod("reader", READER, {"/data": claimed("clicks", True)}))
    running(cluster, "reader")
    more_reads(cluster, "reader")
    for _ in range(3):
        before = workers()
        assert before, "no worker is found"
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        wait_for("no worker comes back", lambda: set(workers()) - set(before))  # noqa: B023
        more_reads(cluster, "reader")
    rounds = ended(cluster, "reader", 3)
    log = cluster.kubectl("-n", NAMESPACE, "logs", "daemonset/terrace-keeper")
    assert "readahead not set" not in log, "the keeper may not set what its mounts read ahead"
    cluster.passed(f"three killed workers cost a reader nothing: {rounds} rounds without an error")


def upgrade(cluster: Cluster, store: Store) -> None:
    """Another image and other values while a pod reads; from here on pods are asked who they are."""
    keeper = keepers(cluster)
    apply(cluster, pod("reader", READER, {"/data": claimed("clicks", True)}))
    running(cluster, "reader")
    more_reads(cluster, "reader")
    tagged(cluster, "0.1.0", "next")
    changed = values({"image": {"tag": "next"}, "log": {"level": "debug"},
                      "csi": {"data": {"podTokens": True, "copies": {"capabilities": ["SYS_ADMIN"]}}},
                      "catalog": {"grants": [{"namespace": TEAM, "account": "reader", "grants": ["read:ads"]}]}})
    with helm(cluster) as connection:
        connection.upgrade(DEPLOY / "helm" / "terrace", "terrace", changed, timeout=INSTALL)
    for kind, names in (("daemonset", ("csi-data", "csi-local")), ("statefulset", ("csi-controller", "catalog")),
                        ("deployment", ("controller",))):
        for name in names:
            cluster.kubectl("-n", NAMESPACE, "rollout", "status", f"{kind}/terrace-{name}", f"--timeout={2 * PATIENCE - 10}s")
    more_reads(cluster, "reader")
    rounds = ended(cluster, "reader", 3)
    cluster.passed(f"an upgrade of everything else costs a reader nothing: {rounds} rounds without an error")
    assert keepers(cluster) == keeper, "the keeper's pod was replaced"
    cluster.passed("the keeper's pod is the one it was")


def keepers(cluster: Cluster) -> list[tuple[str, int]]:
    """Pods of the keeper, and how often their container was started."""
    found = cluster.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component%3Dkeeper")[1]
    return [(one["metadata"]["uid"], one["status"]["containerStatuses"][0]["restartCount"]) for one in found["items"]]


def tagged(cluster: Cluster, old: str, new: str) -> None:
    """The same image under another name, as a registry would have the next release."""
    from machine import CONTAINERD, run
    run("ctr", "--address", CONTAINERD, "--namespace", "k8s.io", "images", "tag", f"{IMAGE}:{old}", f"{IMAGE}:{new}")


def pod_tokens(cluster: Cluster, store: Store) -> None:
    """The kubelet hands a pod's token to the driver, the catalog asks the API server whose it is."""
    before = reviews(cluster)
    apply(cluster, pod("allowed", DIGEST.format("/data"), {"/data": claimed("clicks", True)}, account="reader"),
          pod("refused", DIGEST.format("/data"), {"/data": claimed("clicks", True)}),
          pod("asked", DIGEST.format("/data"), {"/data": inline("ads.clicks@v2")}, account="reader", read_only=True))
    assert said(cluster, "a pod whose account may read gets its claim", "allowed") == digest(3)
    assert said(cluster, "and its inline volume", "asked") == digest(4)
    denied = lambda: "PermissionDenied" in cluster.kubectl(  # noqa: E731
        "-n", TEAM, "get", "events", "--field-selector=involvedObject.name=refused", "-o", "json")
    wait_for("nobody refuses the other pod", denied)
    assert cluster.ask("GET", path("refused"))[1]["status"]["phase"] == "Pending"
    cluster.passed("a pod of another account is refused with PermissionDenied")
    asked = reviews(cluster) - before
    assert asked > 0, "the API server was not asked"
    cluster.passed(f"the API server has reviewed tokens: {asked} times")
    for name in ("allowed", "refused", "asked"):
        cluster.kubectl("-n", TEAM, "delete", "pod", name, f"--timeout={PATIENCE}s")


def reviews(cluster: Cluster) -> int:
    """How many tokens the API server has been asked about."""
    lines = cluster.kubectl("get", "--raw", "/metrics").splitlines()
    counted = [line for line in lines if line.startswith("apiserver_request_total{") and 'resource="tokenreviews"' in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in counted)


def removal(cluster: Cluster, store: Store) -> None:
    """What stays when the chart goes, and is there again when it comes back."""
    cluster.kubectl("-n", TEAM, "delete", "pvc", "clicks", f"--timeout={PATIENCE}s")
    with helm(cluster) as connection:
        connection.uninstall("terrace", timeout=INSTALL, wait="watcher")
    none = lambda: "No resources" in cluster.kubectl("-n", NAMESPACE, "get", "pods", "--no-headers") or not cluster.kubectl(  # noqa: E731
        "-n", NAMESPACE, "get", "pods", "--no-headers")
    wait_for("pods of the release stay", none, 2 * PATIENCE)
    for name in ("terrace-catalog", "terrace-csi-controller"):
        cluster.until(f"the claim {name} stays", path(name, "persistentvolumeclaims", NAMESPACE), phase("Bound"))
    cluster.kubectl("get", "crd", "datasets.terrace.io")
    assert any(Path("/var/cache/terrace").iterdir()), "the hot tier is gone"
    with helm(cluster) as connection:
        connection.install(DEPLOY / "helm" / "terrace", "terrace", values(), wait="watcher", timeout=INSTALL)
    wait_for("nobody answers at the catalog's address", lambda: answers(cluster))
    assert "ads.clicks" in terrace(cluster, "dataset", "list"), "the catalog has lost its datasets"
    apply(cluster, pod("again", DIGEST.format("/data"), {"/data": inline("ads.clicks@v2")}, read_only=True))
    assert said(cluster, "a release that came back reads", "again") == digest(4)
    cluster.passed("and has what the last one had")


ORDER = (install, found_by_itself, annotated, dataset_claim, inline_volume, scratch, directories, snapshots, scratch_snapshots,
         cold_store, killed_worker, upgrade, stubs, pod_tokens, removal)
