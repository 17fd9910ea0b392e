"""A machine inside the machine, and a Kubernetes of one node on it: own mounts, network, processes and name.

    outside                                   inside (process 1 of its namespaces)
    directory below /var/tmp  ── bound over ─ /var/lib /var/cache /var/log /mnt
    a tmpfs                   ───────────────  /run
    an image of XFS           ── on a loop ───  /mnt/pfs /var/lib/terrace/scratch (files there share blocks)
    control groups terrace-cluster-<pid>      one of each hierarchy, of all pods
    kernel settings, kept                     what a kubelet changes of them

Whatever happens inside ends with process 1; what outlives namespaces (loop devices, control groups, kernel
settings, the directory) is put back outside. Everything that a cluster needs lies at its usual paths, so the
chart runs with its defaults.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from images import PAUSE
from nameserver import DOMAIN, NameServer
from pods import SNAPSHOTS
from world import PATIENCE, World, kubernetes

NODE = "one"
# Where the file system lies that nodes share.
SHARED = "/mnt/pfs"
SCRATCH = "/var/lib/terrace/scratch"
# Bytes of its image, of which only what is written lies on the disk.
DISK = 8 << 30
ADDRESS = "10.99.0.1"
PORT = 6443
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/24"
# Whose requests are written down: what is granted is held against what is asked for.
AUDITED = SNAPSHOTS
CONTAINERD = "/run/containerd/containerd.sock"
CONTROL_GROUPS = Path("/sys/fs/cgroup")
# What a kubelet sets on its machine, whether it is the only one there or not.
SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
            "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")


def isolated(script: Path, words: list[str]) -> int:
    """Runs a script as process 1 of namespaces of its own: `script --inside DIRECTORY words`. Its status."""
    place = Path(tempfile.mkdtemp(prefix="terrace-cluster-", dir="/var/tmp"))
    before = {name: Path("/proc/sys", name).read_text() for name in SETTINGS}
    group = f"terrace-cluster-{os.getpid()}"
    try:
        done = subprocess.run(["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
                               sys.executable, str(script), "--inside", str(place), "--group", group, *words])
        return done.returncode
    finally:
        for name, value in before.items():
            Path("/proc/sys", name).write_text(value)
        free_loops(place)
        for groups in CONTROL_GROUPS.iterdir():
            for directory, _, _ in os.walk(groups / group, topdown=False):
                Path(directory).rmdir()
        shutil.rmtree(place)


def free_loops(place: Path) -> None:
    """Detaches the loop devices of files below a directory, by the files' numbers: their paths were others inside."""
    files = {(found.stat().st_dev, found.stat().st_ino) for found in place.rglob("*") if found.is_file() and not found.is_symlink()}
    listed = subprocess.run(["losetup", "--json", "--list", "--output", "NAME,BACK-INO,BACK-MAJ:MIN"],
                            capture_output=True, text=True, check=True).stdout
    for loop in json.loads(listed)["loopdevices"] if listed.strip() else []:
        major, minor = loop["back-maj:min"].split(":")
        if (os.makedev(int(major), int(minor)), int(loop["back-ino"])) in files:
            subprocess.run(["losetup", "--detach", loop["name"]], check=False)


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


class Cluster(World):
    """The programs of a control plane and of its one node."""

    def __init__(self, place: Path, group: str):
        super().__init__(place, ADDRESS, PORT)
        self.group = group

    def enter(self) -> None:
        """Makes the namespaces, which are new and empty, a machine."""
        socket.sethostname(NODE)
        run("mount", "--make-rshared", "/")
        for path in ("var/lib", "var/cache", "var/log", "mnt"):
            bound = self.place / path
            bound.mkdir(parents=True)
            run("mount", "--bind", str(bound), f"/{path}")
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        for path in ("/var/lib/kubelet", "/var/log/pods", "/run/lock"):
            Path(path).mkdir(parents=True)
        (self.place / "resolv.conf").write_text("")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "node", "type", "veth", "peer", "name", "peer")
        run("ip", "address", "add", f"{ADDRESS}/24", "dev", "node")
        for device in ("node", "peer"):
            run("ip", "link", "set", device, "up")
        # Services are addresses that nobody has: without a route no packet gets as far as the rules for them.
        run("ip", "route", "add", "default", "dev", "node")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for groups in CONTROL_GROUPS.iterdir():
            if (groups / "cgroup.procs").exists():
                (groups / self.group).mkdir()
        cpus = CONTROL_GROUPS / "cpuset"
        for name in ("cpuset.cpus", "cpuset.mems") if cpus.exists() else ():
            (cpus / self.group / name).write_text((cpus / name).read_text())

    def disk(self) -> None:
        """A file system whose files share blocks: for directories of all nodes, and a part of it for scratch."""
        image = self.place / "disk.img"
        with open(image, "wb") as file:
            file.truncate(DISK)
        run("mkfs.xfs", "-q", "-m", "reflink=1", str(image))
        for path in (SHARED, SCRATCH):
            Path(path).mkdir(parents=True)
        run("mount", "-o", "loop", str(image), SHARED)
        part = Path(SHARED, "scratch-of-one")
        part.mkdir()
        run("mount", "--bind", str(part), SCRATCH)

    def certificates(self) -> None:
        """An authority of the cluster and the API server's certificate."""
        place = self.place / "pki"
        place.mkdir()
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}"]
        (place / "names").write_text("subjectAltName=" + ",".join(
            [f"DNS:{name}" for name in names] + [f"IP:{ip}" for ip in (ADDRESS, "10.96.0.1", "127.0.0.1")]) + "\n")
        for words in (
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=cluster -keyout ca.key -out ca.crt",
            "req -newkey rsa:2048 -nodes -subj /CN=kube-apiserver -keyout api.key -out api.csr",
            "x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out api.crt",
        ):
            subprocess.run(["openssl", *words.split()], cwd=place, check=True, capture_output=True)

    def account(self, name: str) -> Path:
        """How a program of the cluster reaches the API server: by a token that is its name."""
        path = self.place / f"{name}.kubeconfig"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
            "clusters": [{"name": "cluster", "cluster": {"server": self.url, "certificate-authority": f"{self.place}/pki/ca.crt"}}],
            "users": [{"name": name, "user": {"token": name}}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}]}))
        return path

    def control_plane(self) -> None:
        self.certificates()
        self.start_etcd()
        pki = self.place / "pki"
        policy = self.place / "audit.json"
        policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "resources": [{"group": AUDITED}]}, {"level": "None"}]}))
        self.start_api(
            f"--audit-policy-file={policy}", f"--audit-log-path={self.place}/audit.log", "--allow-privileged=true", f"--service-cluster-ip-range={SERVICES}",
            f"--tls-cert-file={pki}/api.crt", f"--tls-private-key-file={pki}/api.key",
            "--enable-admission-plugins=NodeRestriction", "--kubelet-preferred-address-types=InternalIP",
            users=['manager,system:kube-controller-manager,manager,', 'scheduler,system:kube-scheduler,scheduler,',
                   'proxy,system:kube-proxy,proxy,', f'node,system:node:{NODE},node,"system:nodes"'])
        self.spawn("manager", [
            kubernetes(), "kube-controller-manager", f"--kubeconfig={self.account('manager')}",
            "--use-service-account-credentials=true", f"--service-account-private-key-file={self.place}/account.key",
            f"--root-ca-file={pki}/ca.crt", "--leader-elect=false", "--bind-address=127.0.0.1",
            f"--cert-dir={self.place}/manager", "--authentication-skip-lookup=true"])
        self.spawn("scheduler", [
            kubernetes(), "kube-scheduler", f"--kubeconfig={self.account('scheduler')}", "--leader-elect=false",
            "--bind-address=127.0.0.1", "--authentication-skip-lookup=true"])
        NameServer(ADDRESS, self.address_of)

    def snapshots(self, controller: Path, definitions: list[Path]) -> None:
        """What a cluster has once for the snapshots of all drivers."""
        for path in definitions:
            self.kubectl("apply", "-f", str(path))
        self.kubectl("wait", "--for=condition=Established", f"--timeout={PATIENCE}s", *(f"--filename={path}" for path in definitions))
        self.spawn("snapshots", [controller, f"--kubeconfig={self.account('admin')}", "--enable-distributed-snapshotting", "--v=2"])

    def audited(self) -> list[dict]:
        """Requests of accounts of the cluster for the resources that are audited."""
        return [json.loads(line) for line in (self.place / "audit.log").read_text().splitlines()]

    def address_of(self, service: str, namespace: str) -> str | None:
        status, found = self.ask("GET", f"/api/v1/namespaces/{namespace}/services/{service}")
        return found["spec"].get("clusterIP") if status == 200 else None

    def runtime(self, archives: list[Path]) -> None:
        """The container runtime, with images and a bridge for pods."""
        network = self.place / "cni"
        network.mkdir()
        (network / "10-bridge.conflist").write_text(json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [
            {"type": "bridge", "bridge": "pods", "isDefaultGateway": True, "hairpinMode": True,
             "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "dataDir": str(self.place / "addresses")}}]}))
        config = self.place / "containerd.toml"
        # Without CAP_SYS_RESOURCE, as in some virtual machines, the runtime may not lower a score: it must not try.
        config.write_text(f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{network}"
""")
        self.spawn("containerd", ["containerd", "--config", config])
        end = time.monotonic() + PATIENCE
        while subprocess.run(["ctr", "--address", CONTAINERD, "version"], capture_output=True).returncode != 0:
            assert time.monotonic() < end, self.log("containerd")[-2000:]
            time.sleep(0.2)
        for archive in archives:
            self.load(archive)

    def load(self, archive: Path) -> None:
        """Gives the node an image, as a registry would."""
        run("ctr", "--address", CONTAINERD, "--namespace", "k8s.io", "images", "import", str(archive))

    def node(self, taints: list[dict]) -> None:
        """The kubelet and the proxy; waits until the node is ready."""
        kubelet, proxy = self.place / "kubelet.json", self.place / "proxy.json"
        kubelet.write_text(json.dumps({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
            "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{self.group}", "failCgroupV1": False, "failSwapOn": False,
            "enforceNodeAllocatable": [], "oomScoreAdj": 0, "clusterDNS": [ADDRESS], "clusterDomain": DOMAIN,
            "resolvConf": str(self.place / "resolv.conf"), "registerWithTaints": taints, "volumeStatsAggPeriod": "5s", "syncFrequency": "5s",
            # The disk is the machine's, and full of other things.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100}))
        self.spawn("kubelet", [kubernetes(), "kubelet", f"--config={kubelet}", f"--kubeconfig={self.account('node')}",
                               f"--node-ip={ADDRESS}", "--v=2"])
        proxy.write_text(json.dumps({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
            "clientConnection": {"kubeconfig": str(self.account("proxy"))}, "clusterCIDR": PODS, "oomScoreAdj": 0,
            "hostnameOverride": NODE,
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}}))
        self.spawn("proxy", [kubernetes(), "kube-proxy", f"--config={proxy}"])

        def ready(found) -> bool:
            conditions = (found or {}).get("status", {}).get("conditions", [])
            return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

        self.until("the node is ready", f"/api/v1/nodes/{NODE}", ready)
