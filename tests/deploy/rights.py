"""What the chart's containers and accounts may do, held against the short lists below."""

from common import EVERYTHING, Problems, identity, pod_of, render

# Containers that mount on their host; the API server refuses Bidirectional propagation without it.
PRIVILEGED = {("terrace-keeper", "keeper"), ("terrace-csi-data", "driver"), ("terrace-csi-local", "driver")}
# Containers that speak to the API server.
ASKS_API = {("terrace-csi-local", "provisioner"), ("terrace-csi-local", "resizer"), ("terrace-csi-controller", "provisioner"),
            ("terrace-csi-controller", "resizer"), ("terrace-controller", "controller"), ("terrace-catalog", "catalog")}
SNAPSHOTTERS = {("terrace-csi-local", "snapshotter"), ("terrace-csi-controller", "snapshotter")}
# Directories of the host, besides those that values name.
HOST_PATHS = {"/run/terrace", "/var/lib/terrace/csi", "/var/lib/kubelet", "/var/lib/kubelet/plugins_registry", "/dev", "/sys/fs/cgroup", "/sys/devices/virtual/bdi",
              "/var/lib/kubelet/plugins/data.terrace.io", "/var/lib/kubelet/plugins/local.terrace.io",
              "/var/cache/terrace", "/mnt/pfs", "/mnt/pfs/volumes", "/mnt/homes", "/var/lib/terrace/scratch",
              "/var/lib/terrace/spool", "/ssd/spool"}
# Who makes and removes directories of users, where there are any: root, but with rights over files alone. Copies
# have the owners of their files, and set-group-ID bits, which the kernel takes from who has no FSETID.
MAKES = ("terrace-csi-controller", "driver")
FILES = ["DAC_OVERRIDE", "FOWNER"]
COPIES = [*FILES, "CHOWN", "FSETID"]
DIRECTORIES = {"directories": ["/mnt/pfs/volumes"]}
# Values, and what that driver may do under them.
SETS = (
    ({}, None),
    ({"csi": {"data": DIRECTORIES}}, FILES),
    # Said for copies, and there are none.
    ({"csi": {"data": {**DIRECTORIES, "copies": {"capabilities": ["MKNOD"]}}}}, FILES),
    ({"csi": {"data": {**DIRECTORIES, "copies": {"enabled": True}}}}, COPIES),
    ({"csi": {"data": {**DIRECTORIES, "snapshots": True}}}, COPIES),
    ({"csi": {"local": {"snapshots": True}}}, None),
    (EVERYTHING, [*COPIES, "MKNOD", "SETFCAP", "SYS_ADMIN"]),
)
# What VolumeSnapshots take of the API: resources and verbs.
SNAPSHOTS = {"volumesnapshotclasses": {"list", "watch"}, "volumesnapshotcontents": {"get", "list", "watch", "patch"},
             "volumesnapshotcontents/status": {"update", "patch"}, "volumesnapshots": {"get", "list", "watch", "update"}}
# Who may change nodes, where they wait for their drivers.
UNTAINTS = ("terrace-controller", ["get", "patch"])
DANGEROUS = {"secrets", "pods/exec", "serviceaccounts/token", "clusterroles", "clusterrolebindings", "roles", "rolebindings"}


def container(problems: Problems, owner: str, pod: dict, one: dict, capabilities: list[str] | None) -> None:
    where = f"{owner}/{one['name']}"
    settings = one.get("securityContext", {})
    allowed = (owner, one["name"]) in PRIVILEGED
    makes = owner == MAKES[0] and any("hostPath" in volume for volume in pod["volumes"])
    problems.check(bool(settings.get("privileged")) == allowed, f"{where}: privileged is {settings.get('privileged')}")
    problems.check(settings.get("readOnlyRootFilesystem") is True, f"{where}: its root file system can be written")
    if not allowed:
        problems.check(settings.get("allowPrivilegeEscalation") is False, f"{where}: may gain privileges")
        problems.check(owner != MAKES[0] or makes == (capabilities is not None), f"{where}: directories of the host")
        wanted = {"drop": ["ALL"], "add": capabilities} if makes and (owner, one["name"]) == MAKES else {"drop": ["ALL"]}
        problems.check(settings.get("capabilities") == wanted, f"{where}: keeps capabilities")
        problems.check(settings.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{where}: no seccomp profile")
    root_is_needed = owner in ("terrace-keeper", "terrace-csi-data", "terrace-csi-local")
    problems.check(root_is_needed or makes or settings.get("runAsNonRoot") is True, f"{where}: may be root")
    problems.check("requests" in one.get("resources", {}), f"{where}: asks for no resources")
    limited = "memory" in one.get("resources", {}).get("limits", {})
    # At a limit the kernel ends every process of the container, and with the keeper the mounts.
    problems.check(limited != (one["name"] == "keeper"), f"{where}: memory limit {'set' if limited else 'missing'}")
    mounts = {mount["name"]: mount for mount in one["volumeMounts"]}
    asks = (owner, one["name"]) in ASKS_API | SNAPSHOTTERS
    problems.check(("api" in mounts) == asks, f"{where}: token of the API server")
    for mount in mounts.values():
        if mount.get("mountPropagation") == "Bidirectional":
            problems.check(allowed, f"{where}: mounts on its host")
    problems.check(one["image"].count(":") >= 1 and not one["image"].endswith(":latest"), f"{where}: {one['image']}")
    declared = {volume["name"] for volume in pod["volumes"]}
    problems.check(set(mounts) <= declared, f"{where}: mounts of no volume: {set(mounts) - declared}")


def pods(problems: Problems, found: list[dict], values: dict, capabilities: list[str] | None) -> None:
    seen = set()
    for one in found:
        pod = pod_of(one)
        if pod is None:
            continue
        owner = one["metadata"]["name"]
        problems.check(pod.get("automountServiceAccountToken") is False, f"{owner}: every container gets a token")
        problems.check(bool(pod.get("priorityClassName")), f"{owner}: no priority class")
        problems.check(pod["nodeSelector"].get("kubernetes.io/os") == "linux", f"{owner}: runs on other systems")
        problems.check(not pod.get("hostPID") or owner == "terrace-keeper", f"{owner}: sees the host's processes")
        problems.check(not pod.get("hostNetwork") or owner == "terrace-keeper", f"{owner}: in the host's network")
        problems.check(not pod.get("hostIPC"), f"{owner}: shares memory with the host")
        used = {mount["name"] for each in pod["containers"] for mount in each["volumeMounts"]}
        for volume in pod["volumes"]:
            problems.check(volume["name"] in used, f"{owner}: nobody mounts the volume {volume['name']}")
            if "hostPath" in volume:
                problems.check(volume["hostPath"]["path"] in HOST_PATHS, f"{owner}: {volume['hostPath']['path']}")
                problems.check("type" in volume["hostPath"], f"{owner}: {volume['name']}: made as anything")
        selector = one["spec"]["selector"]["matchLabels"]
        labels = one["spec"]["template"]["metadata"]["labels"]
        problems.check(selector.items() <= labels.items(), f"{owner}: selects other pods than its own")
        for each in pod["containers"]:
            seen.add((owner, each["name"]))
            container(problems, owner, pod, each, capabilities)
    problems.check((PRIVILEGED | ASKS_API) <= seen, f"listed and not there: {(PRIVILEGED | ASKS_API) - seen}")
    wanted = {f"terrace-csi-{part}" for part in taken(values)}
    there = {owner.replace("csi-controller", "csi-data") for owner, _ in seen & SNAPSHOTTERS}
    problems.check(there == wanted, f"snapshotters beside {there}, wanted {wanted}")


def taken(values: dict) -> set[str]:
    """Drivers whose volumes have snapshots."""
    return {part for part in ("data", "local") if values.get("csi", {}).get(part, {}).get("snapshots")}


def snapshots(problems: Problems, found: list[dict], values: dict) -> None:
    """What the accounts of the drivers may do with snapshots: that, and nothing where there are none."""
    for part, name in (("data", "terrace-csi-controller"), ("local", "terrace-csi-local")):
        allowed: dict[str, set[str]] = {}
        for one in (one for one in found if one["kind"] in ("ClusterRole", "Role")):
            for rule in one["rules"]:
                if "snapshot.storage.k8s.io" not in rule["apiGroups"]:
                    continue
                problems.check(rule["apiGroups"] == ["snapshot.storage.k8s.io"], f"{identity(one)}: {rule}")
                problems.check(one["metadata"]["name"] in ("terrace-csi-controller", "terrace-csi-local"), f"{identity(one)}: {rule}")
                for resource in rule["resources"] if one["metadata"]["name"] == name else ():
                    allowed.setdefault(resource, set()).update(rule["verbs"])
        wanted = SNAPSHOTS if part in taken(values) else {}
        problems.check(allowed == wanted, f"{name}: may {allowed} of snapshots, wanted {wanted}")
    made = {one["driver"] for one in found if one["kind"] == "VolumeSnapshotClass"}
    problems.check(made == {f"{part}.terrace.io" for part in taken(values)}, f"classes of snapshots for {made}")


def keeper(problems: Problems, found: list[dict]) -> None:
    """With a root that is read-only /tmp and /sys are, too: mounts without readahead, and connections that hang."""
    pod = next(pod_of(one) for one in found if one["metadata"]["name"] == "terrace-keeper" and pod_of(one))
    mounted = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    for path in ("/tmp", "/sys/devices/virtual/bdi"):
        problems.check(path in mounted and not mounted[path].get("readOnly"), f"terrace-keeper: cannot write {path}")


def accounts(problems: Problems, found: list[dict], waits: bool) -> None:
    bound = {}
    for one in found:
        if one["kind"] in ("ClusterRoleBinding", "RoleBinding"):
            problems.check(len(one["subjects"]) == 1, f"{identity(one)}: several accounts share a role")
            for subject in one["subjects"]:
                bound.setdefault(subject["name"], []).append(one["roleRef"]["name"])
        if one["kind"] not in ("ClusterRole", "Role"):
            continue
        for rule in one["rules"]:
            words = [word for key in ("verbs", "resources", "apiGroups") for word in rule[key]]
            problems.check("*" not in words, f"{identity(one)}: {rule}")
            problems.check(not DANGEROUS & set(rule["resources"]), f"{identity(one)}: {rule['resources']}")
            over = {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])
            problems.check(not over, f"{identity(one)}: {over}")
            if "nodes" in rule["resources"] or "pods" in rule["resources"]:
                untaints = rule["resources"] == ["nodes"] and (one["metadata"]["name"], rule["verbs"]) == UNTAINTS
                reads = set(rule["verbs"]) <= {"get", "list", "watch"}
                problems.check(reads or untaints and waits, f"{identity(one)}: changes {rule['resources']}")
    # What runs on every node and needs no API server has no rights there at all.
    for account in ("terrace-keeper", "terrace-csi-data"):
        problems.check(account not in bound, f"{account} has {bound.get(account)}")
    used = {pod_of(one)["serviceAccountName"] for one in found if pod_of(one)}
    made = {one["metadata"]["name"] for one in found if one["kind"] == "ServiceAccount"}
    problems.check(used == made, f"accounts made and not used, or the other way round: {used ^ made}")
    problems.check(set(bound) <= made, f"rights for accounts that are not there: {set(bound) - made}")


problems = Problems()
for values, capabilities in SETS:
    rendered = render(values)
    pods(problems, rendered, values, capabilities)
    snapshots(problems, rendered, values)
    keeper(problems, rendered)
    accounts(problems, rendered, values.get("controller", {}).get("startupTaint", False))
problems.end("rights of containers and accounts")
