"""A shared file system for the warm tier and for directory volumes: GlusterFS, or a second local file system in its place.

GlusterFS runs whole (glusterd, one brick, a FUSE client) in a network namespace of its own: its
fixed port 24007 can then meet nobody else's, and nothing of it is reachable from outside. The mount
itself belongs to the mount namespace of the tests. There are two mounts, each by a client of its own, as
on two nodes.

Where it cannot run, an ext4 image on a loop device stands in: another file system than the hot
tier's, but not a shared one. `TERRACE_TEST_SHARED_FS_KIND` says which it is.
"""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from support import HERE, Run, Unavailable, need_program, need_root, run

VOLUME = "warm"
# What has to be off for close-to-open consistency between clients: by default a close does not wait for the
# bricks, an open asks nobody, and attributes, and contents up to 64 KiB, are kept for a second.
OFF = ("performance.flush-behind", "performance.open-behind", "performance.stat-prefetch",
       "performance.quick-read")
IMAGE_BYTES = 4 << 30


class Shared:
    """The warm tier's file system."""

    name = "shared"
    variable = "TERRACE_TEST_SHARED_FS"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> None:
        """Nothing to fetch: GlusterFS comes from the distribution."""

    def up(self) -> dict[str, str]:
        need_root()
        try:
            mountpoint, other = self.gluster()
            return {"TERRACE_TEST_SHARED_FS": str(mountpoint), "TERRACE_TEST_SHARED_FS_KIND": "glusterfs",
                    "TERRACE_TEST_SHARED_FS_OTHER": str(other)}
        except Exception as why:  # Whatever is wrong with GlusterFS, the stand-in can still serve.
            print(f"shared: no GlusterFS here ({why}); an ext4 image on a loop device stands in", flush=True)
            mountpoint = self.loop_device()
        return {"TERRACE_TEST_SHARED_FS": str(mountpoint), "TERRACE_TEST_SHARED_FS_KIND": "ext4-loop"}

    def gluster(self) -> tuple[Path, Path]:
        """glusterd, a volume of one brick, and two mounts of it."""
        need_program("glusterd", "gluster", "glusterfs", "ip", "nsenter", "mount.glusterfs")
        data = self.run.place("gluster")
        for directory in ("work", "run", "brick"):
            (data / directory).mkdir(exist_ok=True)
        host = socket.gethostname()
        inside = self.namespace(host)
        settings = data / "glusterd.vol"
        settings.write_text((HERE / "gluster" / "glusterd.vol").read_text().replace("@DATA@", str(data)))
        daemon = self.run.spawn("glusterd", inside + [
            "glusterd", "-N", "-f", str(settings), "-p", str(data / "glusterd.pid"),
            "-l", str(self.run.place("log") / "glusterd-detail.log")])
        client = inside + ["gluster", "--mode=script", f"--glusterd-sock={data}/glusterd.sock",
                           f"--log-file={self.run.place('log')}/gluster-cli.log"]
        self.run.wait("glusterd", daemon, 30, lambda: succeeds(client + ["volume", "list"]))
        # A brick on the root file system is refused without `force`.
        run(client + ["volume", "create", VOLUME, f"{host}:{data}/brick", "force"])
        for option in OFF:
            run(client + ["volume", "set", VOLUME, option, "off"])
        run(client + ["volume", "start", VOLUME])
        mountpoints = self.run.place("shared"), self.run.place("shared-other")
        for mountpoint in mountpoints:
            self.run.record(kind="mount", path=str(mountpoint))
            log = self.run.place("log") / f"gluster-{mountpoint.name}.log"
            run(inside + ["mount", "-t", "glusterfs", "-o", f"log-file={log}", f"{host}:/{VOLUME}",
                          str(mountpoint)])
            check_writable(mountpoint)
        return mountpoints

    def namespace(self, host: str) -> list[str]:
        """A network namespace in which `host` is this machine; the prefix of commands inside it."""
        try:
            address = socket.gethostbyname(host)
        except OSError as error:
            raise Unavailable(f"the host name {host} does not resolve") from error
        name = f"terrace-test-{os.getpid()}"
        self.run.record(kind="namespace", name=name)
        run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "set", "lo", "up"])
        if not address.startswith("127."):
            run(["ip", "-n", name, "address", "add", f"{address}/32", "dev", "lo"])
        # `ip netns exec` would leave the mount namespace too, and the tests would not see the mount.
        return ["nsenter", f"--net=/run/netns/{name}"]

    def loop_device(self) -> Path:
        """An ext4 file system in a sparse file."""
        need_program("mkfs.ext4", "losetup")
        image = self.run.place("loop") / "image"
        with open(image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        run(["mkfs.ext4", "-q", "-F", str(image)])
        device = run(["losetup", "--find", "--show", str(image)]).strip()
        self.run.record(kind="loop", device=device, file=str(image))
        mountpoint = self.run.place("shared-ext4")
        self.run.record(kind="mount", path=str(mountpoint))
        run(["mount", device, str(mountpoint)])
        check_writable(mountpoint)
        return mountpoint

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        # In a process of its own: a mount whose servers are gone can block whoever asks it.
        mountpoint = environment[Shared.variable]
        return succeeds(["stat", "-f", mountpoint]) and os.path.ismount(mountpoint)


def succeeds(argv: list[str]) -> bool:
    """Whether a command ends with status 0 within 10 s."""
    try:
        return subprocess.run(argv, timeout=10, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0
    except (subprocess.TimeoutExpired, OSError):
        return False


def check_writable(mountpoint: Path) -> None:
    """One write, sync, rename and read: a mount that cannot do them is no use to the tests."""
    probe = mountpoint / ".probe"
    probe.mkdir()
    with open(probe / "a", "wb") as file:
        file.write(b"terrace")
        file.flush()
        os.fsync(file.fileno())
    os.rename(probe / "a", probe / "b")
    if (probe / "b").read_bytes() != b"terrace":
        raise RuntimeError(f"{mountpoint}: read back something else than was written")
    shutil.rmtree(probe)
