"""The units of bare hosts: systemd reads them, and the mistakes that would take mounts away are not in them."""

import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from common import DEPLOY, Problems, run

UNITS = DEPLOY / "systemd"
# Settings that give a service a mount namespace of its own, in which nobody else sees what it mounts.
OWN_NAMESPACE = ("PrivateTmp", "PrivateMounts", "PrivateDevices", "ProtectSystem", "ProtectHome", "ReadOnlyPaths",
                 "ReadWritePaths", "InaccessiblePaths", "ProtectKernelTunables", "ProtectKernelModules",
                 "ProtectControlGroups", "MountFlags", "TemporaryFileSystem", "BindPaths", "RootDirectory",
                 "LoadCredential", "DynamicUser", "ProtectProc", "ProcSubset")
LACKING = 77


def settings(path: Path) -> dict[str, list[str]]:
    """Keys with every value that they are given."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found.setdefault(key, []).append(value)
    return found


def commands(path: Path) -> list[list[str]]:
    """Command lines of a unit, for one instance of it."""
    found = settings(path)
    lines = found.get("ExecStart", []) + found.get("ExecReload", [])
    replaced = [line.replace("%i", "data").replace("%H", "host").replace(" $CSI_ARGS", "") for line in lines]
    return [shlex.split(line.replace("${CREDENTIALS_DIRECTORY}", "/run/credentials")) for line in replaced]


def verify(problems: Problems) -> None:
    """systemd's own check, with a program where the package puts ours."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "terrace")
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        copies = []
        for path in sorted(UNITS.glob("*.service")):
            copy = Path(scratch, path.name.replace("@.", "@data."))
            copy.write_text(path.read_text().replace("/usr/bin/terrace", str(program)))
            copies.append(str(copy))
        done = run(["systemd-analyze", "verify", "--man=no", "--generators=no", "--recursive-errors=no", *copies])
        said = (done.stdout + done.stderr).strip()
        problems.check(done.returncode == 0 and not said, f"systemd-analyze verify: {said}")
        wrong = Path(scratch, "wrong.service")
        wrong.write_text(f"[Service]\nExecStart={program}\nKilMode=process\n")
        said = run(["systemd-analyze", "verify", "--man=no", "--generators=no", str(wrong)])
        problems.check("KilMode" in said.stdout + said.stderr, "systemd-analyze takes every key")


def mounts_stay(problems: Problems) -> None:
    for name in ("terrace-keeper.service", "terrace-csi@.service"):
        found = settings(UNITS / name)
        for key in OWN_NAMESPACE:
            problems.check(key not in found, f"{name}: {key} hides its mounts from everybody else")
    keeper = settings(UNITS / "terrace-keeper.service")
    for key, value in (("KillMode", "process"), ("OOMPolicy", "continue"), ("Restart", "always"),
                       ("RuntimeDirectoryPreserve", "yes")):
        problems.check(keeper.get(key) == [value], f"terrace-keeper.service: {key} is {keeper.get(key)}, not {value}")
    catalog = settings(UNITS / "terrace-catalog.service")
    problems.check(catalog.get("User") == ["terrace"] and catalog.get("CapabilityBoundingSet") == [""],
                   "terrace-catalog.service: runs with rights")
    account = (UNITS / "terrace.sysusers.conf").read_text()
    problems.check("\nu terrace " in account, "terrace.sysusers.conf: makes no account terrace")


if __name__ == "__main__":
    if not shutil.which("systemd-analyze"):
        print("systemd-analyze not found", file=sys.stderr)
        sys.exit(LACKING)
    problems = Problems()
    verify(problems)
    mounts_stay(problems)
    problems.end("systemd units")
