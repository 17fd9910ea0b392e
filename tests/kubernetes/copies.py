"""Snapshots, copies and cold stores of volumes, by VolumeSnapshots and claims as users write them."""

import hashlib
import itertools
from pathlib import Path

import yaml

from cluster import ARCHIVE, NAMESPACE, TEAM, VOLUMES, Store
from images import DEPLOY
from machine import AUDITED, SCRATCH, Cluster
from pods import claim, claimed, pod, snapshot, storage_class
from steps import apply, path, running, said, wait_for
from world import PATIENCE

# Files that end, of a user with a group, set-group-ID bits, a link and a second name; then one that goes on.
WRITER = """cd /shared && mkdir step && cd step && dd if=/dev/urandom of=weights bs=1M count=8 2> /dev/null && chmod 2750 weights . &&
ln weights same && ln -s weights link && cd .. && n=0
while [ ! -e /tmp/stop ]; do n=$((n + 1)); echo $n > count.new && mv count.new count || exit 1; sleep 0.1; done
echo $n
"""
# What the files that end are: names, owners, modes, numbers of names, times, contents.
DESCRIBED = ("cd {0}/step && find . -exec stat -c '%n %u:%g %a %h %Y %F' '{{}}' ';' | sort && readlink link && "
             "sha256sum weights same")
STAY = "while [ ! -e /tmp/stop ]; do sleep 0.2; done"
# A status of the API server.
FORBIDDEN = 403
# The claim that the checks before and after use.
KEPT = "clicks"


def snapshots(cluster: Cluster, store: Store) -> None:
    """The example: a snapshot of a directory that a pod goes on writing, a claim made of it, and one without it."""
    taken, restored, copied = yaml.safe_load_all((DEPLOY / "examples" / "snapshot.yaml").read_text())
    origin = claim(taken["spec"]["source"]["persistentVolumeClaimName"], "checkpoints", "ReadWriteMany", "500Gi")
    names = {kind: one["metadata"]["name"] for kind, one in (("snapshot", taken), ("restored", restored), ("copied", copied),
                                                             ("origin", origin))}
    user = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}
    apply(cluster, origin, pod("writer", WRITER, {"/shared": claimed(names["origin"])}, security=user))
    running(cluster, "writer")
    count = lambda: executed(cluster, "writer", "cat /shared/count 2> /dev/null || echo 0")  # noqa: E731
    wait_for("nothing is written", lambda: int(count()) > 0)
    want = executed(cluster, "writer", DESCRIBED.format("/shared"))
    assert "./weights 1000:2000 2750 2 " in want, want
    apply(cluster, taken)
    cluster.until("a snapshot of a directory is ready", of_snapshots(names["snapshot"]), ready, 2 * PATIENCE)
    executed(cluster, "writer", "echo later > /shared/later")
    look = DESCRIBED.format("/shared") + "; echo later: $(cat /shared/later 2> /dev/null); echo mine > /shared/mine"
    apply(cluster, restored, copied, pod("restored", look, {"/shared": claimed(names["restored"])}, security=user),
          pod("copied", look, {"/shared": claimed(names["copied"])}, security=user))
    found = said(cluster, "a pod reads a claim that was restored from it", "restored")
    assert found == f"{want}\nlater:", f"{found}\n\ninstead of\n{want}"
    cluster.passed("it has the files of then, with owners, modes and links")
    found = said(cluster, "a claim is a copy of another one", "copied")
    assert found == f"{want}\nlater: later", f"{found}\n\ninstead of\n{want}"
    before = int(count())
    wait_for("the writer has stopped", lambda: int(count()) > before)
    assert executed(cluster, "writer", "ls /shared | grep -v count.new") == "count\nlater\nstep", "a copy writes into its origin"
    executed(cluster, "writer", "touch /tmp/stop")
    said(cluster, "and the original goes on without an error", "writer")
    # A copy needs nothing of what it was made of.
    removed(cluster, "pod/writer", "pod/restored", "pod/copied", f"pvc/{names['origin']}", f"volumesnapshot/{names['snapshot']}")
    apply(cluster, pod("later", DESCRIBED.format("/shared"), {"/shared": claimed(names["restored"])}, security=user))
    assert said(cluster, "and is whole when snapshot and original are gone", "later") == want
    removed(cluster, "pod/later", f"pvc/{names['restored']}", f"pvc/{names['copied']}")
    nothing_left(cluster, Path(VOLUMES, "checkpoints", "terrace-volumes"), "volumes", "snapshots", "trash", "making")
    cluster.passed("snapshots and claims of directories leave nothing")


def scratch_snapshots(cluster: Cluster, store: Store) -> None:
    """A scratch volume as it is, while a pod has it mounted; its node takes the snapshot."""
    restored = claim("cache-again", "terrace-scratch", "ReadWriteOnce", "320Mi", "cache-1")
    apply(cluster, claim("cache", "terrace-scratch", "ReadWriteOnce", "320Mi"),
          pod("first", f"echo one > /scratch/a; sync; {STAY}", {"/scratch": claimed("cache")}))
    running(cluster, "first")
    wait_for("nothing is written", lambda: executed(cluster, "first", "cat /scratch/a 2> /dev/null || true") == "one")
    executed(cluster, "first", "sync")
    apply(cluster, snapshot("cache-1", "terrace-scratch", "cache"))
    cluster.until("a snapshot of a scratch volume in use is ready", of_snapshots("cache-1"), ready, 2 * PATIENCE)
    executed(cluster, "first", "echo two > /scratch/a")
    apply(cluster, restored, pod("second", "cat /scratch/a", {"/scratch": claimed("cache-again")}))
    assert said(cluster, "a scratch volume is restored from it beside the first one", "second") == "one"
    removed(cluster, "pod/first", "pod/second", "pvc/cache", "pvc/cache-again", "volumesnapshot/cache-1")
    nothing_left(cluster, Path(SCRATCH), "volumes", "snapshots", "trash", "making")
    cluster.passed("snapshots and claims of scratch volumes leave nothing")
    rights(cluster)


def rights(cluster: Cluster) -> None:
    """What the drivers' accounts may do with snapshots is what their sidecars have done by now, and nothing was refused."""
    for account in ("terrace-csi-controller", "terrace-csi-local"):
        asked = [one for one in cluster.audited() if one["user"]["username"] == f"system:serviceaccount:{NAMESPACE}:{account}"]
        refused = [one["requestURI"] for one in asked if one["responseStatus"]["code"] == FORBIDDEN]
        assert not refused, refused
        done = {("/".join(filter(None, (one["objectRef"]["resource"], one["objectRef"].get("subresource")))), one["verb"]) for one in asked}
        role = cluster.ask("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{account}")[1]
        granted = {(resource, verb) for rule in role["rules"] if AUDITED in rule["apiGroups"]
                   for resource in rule["resources"] for verb in rule["verbs"]}
        assert done == granted, f"{account}: granted and never asked for {granted - done}, the other way {done - granted}"
    cluster.passed("the sidecars have used every right over snapshots that they have")


def cold_store(cluster: Cluster, store: Store) -> None:
    """The example's class with this store: what a rule names is there when close(2) returns; other stores are refused.
    Contents that have moved there are not copied by a driver that may not see where they are."""
    found, _ = yaml.safe_load_all((DEPLOY / "examples" / "cold.yaml").read_text())
    found["parameters"].update({"directory": f"file://{VOLUMES}/results", "cold": f"{ARCHIVE}/results",
                                "csi.storage.k8s.io/node-stage-secret-name": "archive",
                                "csi.storage.k8s.io/node-stage-secret-namespace": TEAM})
    other = storage_class("elsewhere", {"directory": f"file://{VOLUMES}/results", "cold": "s3://terrace/warehouse"})
    keys = [f"--from-literal={name}={store.environment[name]}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    cluster.kubectl("-n", TEAM, "create", "secret", "generic", "archive", *keys)
    write = ("cd /shared && mkdir final && echo result > final/result && echo note > note && "
             f"dd if=/dev/urandom of=old bs=1M count=4 2> /dev/null && sha256sum old && touch done; {STAY}")
    apply(cluster, {**found, "reclaimPolicy": "Delete"}, other, claim("results", found["metadata"]["name"], "ReadWriteMany", "1Gi"),
          claim("elsewhere", "elsewhere", "ReadWriteMany", "1Gi"), pod("result", write, {"/shared": claimed("results")}))
    running(cluster, "result")
    wait_for("nothing is written", lambda: "done" in executed(cluster, "result", "ls /shared"))
    cluster.passed("a pod writes a directory with a cold store")
    objects = store.objects(ARCHIVE.removeprefix("s3://terrace/"))
    assert list(objects.values()).count(len("result\n")) == 1 and len("note\n") not in objects.values(), objects
    cluster.passed("what the class names is in the store, and nothing else of it")
    events = lambda: cluster.kubectl("-n", TEAM, "get", "events", "--field-selector=involvedObject.name=elsewhere", "-o", "json")  # noqa: E731
    wait_for("nobody refuses the other store", lambda: "lies below none of the stores" in events())
    cluster.passed("a class that names another store makes no volume")
    cluster.kubectl("-n", NAMESPACE, "exec", "daemonset/terrace-keeper", "--", "/usr/bin/terrace", "--run-dir=/run/terrace",
                    "volume", "demote", f"{staged(cluster, 'results')}/old")
    assert on_disk("old").stat().st_size == 0
    cluster.passed("contents move to the store while the pod has the volume")
    apply(cluster, snapshot("results-1", "terrace-directories", "results"))
    cluster.until("a snapshot that would lack them is refused, with the capability that is missing", of_snapshots("results-1"),
                  lambda one: "CAP_SYS_ADMIN" in (one or {}).get("status", {}).get("error", {}).get("message", ""), 2 * PATIENCE)
    removed(cluster, "pvc/elsewhere")


def stubs(cluster: Cluster, store: Store) -> None:
    """The same snapshot when the driver has that capability, which the upgrade has given to it."""
    cluster.until("it is ready when the driver may see where they are", of_snapshots("results-1"), ready, 2 * PATIENCE)
    restored = claim("results-again", "results", "ReadWriteMany", "1Gi", "results-1")
    apply(cluster, restored, pod("again", "cd /shared && sha256sum old", {"/shared": claimed("results-again")}))
    want = cluster.kubectl("-n", TEAM, "logs", "result").strip()
    assert said(cluster, "and a claim restored from it has them", "again") == want
    assert on_disk("old").stat().st_size == 0, "the original has been read, and not the copy"
    executed(cluster, "result", "touch /tmp/stop")
    removed(cluster, "pod/result", "pod/again", "pvc/results", "pvc/results-again", "volumesnapshot/results-1")
    nothing_left(cluster, Path(VOLUMES, "results", "terrace-volumes"), "volumes", "snapshots", "trash", "making")
    cluster.kubectl("delete", "storageclass", "results", "elsewhere")
    cluster.passed("and nothing is left of either")


def on_disk(name: str) -> Path:
    """A file of the volume `results` in the shared file system, as it is without anybody's help; of several volumes
    that have one, the one whose contents are away."""
    found = list(Path(VOLUMES, "results", "terrace-volumes", "volumes").glob(f"*/{name}"))
    shown = [path for path in found if path.stat().st_size == 0] or found
    assert shown, f"there is no {name}"
    return shown[0]


def staged(cluster: Cluster, name: str) -> str:
    """Where the node has the volume of a claim mounted."""
    volume = cluster.ask("GET", path(name, "persistentvolumeclaims"))[1]["spec"]["volumeName"]
    handle = cluster.ask("GET", f"/api/v1/persistentvolumes/{volume}")[1]["spec"]["csi"]["volumeHandle"]
    below = f"/var/lib/kubelet/plugins/kubernetes.io/csi/data.terrace.io/{hashlib.sha256(handle.encode()).hexdigest()}/"
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next(mount for mount in mounts if mount.startswith(below))


def executed(cluster: Cluster, name: str, command: str) -> str:
    return cluster.kubectl("-n", TEAM, "exec", name, "--", "sh", "-c", command).strip()


def of_snapshots(name: str) -> str:
    return f"/apis/snapshot.storage.k8s.io/v1/namespaces/{TEAM}/volumesnapshots/{name}"


def ready(found) -> bool:
    return bool(found) and found.get("status", {}).get("readyToUse") is True


def removed(cluster: Cluster, *names: str) -> None:
    """Deletes objects one by one, and waits until each is gone."""
    for name in names:
        cluster.kubectl("-n", TEAM, "delete", name, f"--timeout={2 * PATIENCE - 10}s")


def nothing_left(cluster: Cluster, place: Path, *parts: str) -> None:
    """Neither objects of volumes and snapshots nor files of theirs."""
    def left() -> list[str]:
        volumes = cluster.ask("GET", "/api/v1/persistentvolumes")[1]["items"]
        contents = cluster.ask("GET", "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents")[1]["items"]
        of_team = [one for one in volumes if one["spec"].get("claimRef", {}).get("namespace") == TEAM]
        names = [one["metadata"]["name"] for one in of_team if one["spec"]["claimRef"]["name"] != KEPT]
        files = itertools.chain.from_iterable((place / part).iterdir() for part in parts if (place / part).exists())
        return [*names, *(one["metadata"]["name"] for one in contents), *map(str, files)]

    wait_for(f"{place}: something stays", lambda: not left(), 2 * PATIENCE)
