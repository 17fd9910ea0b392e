"""Pods and claims as users write them, for the checks of cluster.py."""

from images import WORKLOAD

# The group of VolumeSnapshots.
SNAPSHOTS = "snapshot.storage.k8s.io"

# Everything below /data, in the order of names, as one digest.
DIGEST = "cd {0} && find . -type f -name '*.csv' | sort | xargs cat | sha256sum | cut -c1-64"
# Reads everything again and again, until it is told to end, and counts what was not as the first time.
READER = f"""want=$({DIGEST.format('/data')}); reads=0; bad=0
while [ ! -e /tmp/stop ]; do
  got=$({DIGEST.format('/data')}); reads=$((reads + 1)); [ "$got" = "$want" ] || bad=$((bad + 1))
  echo $reads > /tmp/reads.new && mv /tmp/reads.new /tmp/reads
done
echo "$want $reads $bad"
"""


def pod(name: str, command: str, volumes: dict[str, dict], annotations: dict | None = None, account: str = "default",
        security: dict | None = None, read_only: bool = False) -> dict:
    """A pod that runs a command with volumes by their paths."""
    named = {path: f"v{index}" for index, path in enumerate(volumes)}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "serviceAccountName": account,
            "securityContext": security or {},
            "containers": [{
                "name": "main", "image": WORKLOAD, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", command],
                "volumeMounts": [{"name": named[path], "mountPath": path, "readOnly": read_only} for path in volumes]}],
            "volumes": [{"name": named[path], **volume} for path, volume in volumes.items()]}}


def claimed(name: str, read_only: bool = False) -> dict:
    return {"persistentVolumeClaim": {"claimName": name, "readOnly": read_only}}


def inline(dataset: str) -> dict:
    return {"csi": {"driver": "data.terrace.io", "readOnly": True, "volumeAttributes": {"dataset": dataset}}}


def claim(name: str, storage_class: str, mode: str, size: str, snapshot: str | None = None) -> dict:
    """A claim, of a new volume or of one that has what a snapshot has."""
    source = {"dataSource": {"apiGroup": SNAPSHOTS, "kind": "VolumeSnapshot", "name": snapshot}} if snapshot else {}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": [mode], "storageClassName": storage_class, "resources": {"requests": {"storage": size}}, **source}}


def snapshot(name: str, snapshot_class: str, claim: str) -> dict:
    return {"apiVersion": f"{SNAPSHOTS}/v1", "kind": "VolumeSnapshot", "metadata": {"name": name},
            "spec": {"volumeSnapshotClassName": snapshot_class, "source": {"persistentVolumeClaimName": claim}}}


def storage_class(name: str, parameters: dict, **more) -> dict:
    return {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "data.terrace.io", "parameters": parameters, "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate", **more}
