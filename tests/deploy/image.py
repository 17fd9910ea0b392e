"""The image without a container engine: its Dockerfile judged, the files of its last stage made by the same
script, run in a chroot, and made again to the same bytes; and the build's context is what the build needs.

Not run here: the stages themselves (`docker build`), because the machine of the tests has no engine.
"""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from common import DEPLOY, ROOT, TOOLS, Problems, run

LACKING = 77
# What would make a break-in comfortable.
REFUSED = ("sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "curl", "wget", "perl", "python3", "nc")
BYTES_MAX = 64 << 20
# What looks for a program and goes on without it.
OPTIONAL = ("src/doctor/",)


def ignored(path: str, rules: list[str]) -> bool:
    """Whether the context leaves a file out: the last rule that fits counts, for a file or what it is in."""
    out = False
    places = [path, *(str(parent) for parent in Path(path).parents)][:-1]
    for rule in rules:
        pattern = rule.removeprefix("!")
        anywhere = pattern.startswith("**/")
        pattern = pattern.removeprefix("**/")
        fits = any(fnmatch(Path(place).name, pattern) if anywhere else place == pattern or (pattern == "*") for place in places)
        if fits:
            out = not rule.startswith("!")
    return out


def context(problems: Problems, scratch: Path) -> None:
    """Lays the context out; cargo must find a workspace in it, and the code every file that it includes."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    listed = run(["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]).stdout.splitlines()
    kept = [path for path in listed if not ignored(path, rules) and (ROOT / path).exists()]
    programs = re.search(r"^programs=\((.*)\)$", (DEPLOY / "image" / "rootfs.sh").read_text(), re.MULTILINE)[1].split()
    problems.check(not any(path.startswith((".git/", "tests/", ".ci/")) for path in kept), "the context has too much in it")
    for path in kept:
        target = scratch / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target)
    done = run(["cargo", "metadata", "--no-deps", "--offline", "--format-version=1"], cwd=scratch)
    problems.check(done.returncode == 0 and '"name":"terrace"' in done.stdout, f"cargo in the context: {done.stderr}")
    for path in kept:
        if not path.endswith(".rs") or path.endswith("tests.rs") or "/tests/" in path:
            continue
        code = (scratch / path).read_text().split("#[cfg(test)]\nmod ")[0]
        # The image has no PATH to fall back to.
        for name in re.findall(r'(?<!clap::)Command::new\("([^/"]+)"\)', code) if not path.startswith(OPTIONAL) else ():
            problems.check(name in programs, f"{path} starts {name}, which rootfs.sh does not put into the image")
        for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', code):
            included = (scratch / path).parent / name
            problems.check(included.exists() or "/tests/" in name, f"{path} includes {name}, which the context lacks")
    for path in re.findall(r"^COPY (?!--from)(\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        problems.check((scratch / path).exists(), f"the Dockerfile copies {path}, which the context lacks")


def digest(directory: Path) -> str:
    """Of names, modes, times and bytes of everything below."""
    found = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        about = path.lstat()
        found.update(f"{path.relative_to(directory)} {about.st_mode} {int(about.st_mtime)}\n".encode())
        if path.is_symlink():
            found.update(os.readlink(path).encode())
        elif path.is_file():
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def rootfs(problems: Problems, scratch: Path, binary: str) -> None:
    script, trees = str(DEPLOY / "image" / "rootfs.sh"), [scratch / "one", scratch / "two"]
    for tree in trees:
        done = run([script, binary, str(tree)], env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
        if done.returncode != 0:
            problems.add(f"rootfs.sh: {done.stderr}")
            return
    first = trees[0]
    problems.check(digest(first) == digest(trees[1]), "two builds of the image's files differ")
    again = run([script, binary, str(first)])
    problems.check(again.returncode == 1 and "exists" in again.stderr, "rootfs.sh writes over a directory")
    files = [path for path in first.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in files:
        problems.check(path.name not in REFUSED, f"the image has {path.name}")
        problems.check(not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID), f"{path.name} changes its user")
        problems.check(not path.stat().st_mode & stat.S_IWOTH, f"{path.name} can be written by everybody")
    others = sum(path.stat().st_size for path in files if path.name != "terrace")
    problems.check(others < BYTES_MAX, f"{others >> 20} MiB besides the binary")
    if os.geteuid() == 0:
        for argv in (["/usr/bin/terrace", "--version"], ["/usr/sbin/mkfs.ext4", "-V"], ["/usr/sbin/mkfs.xfs", "-V"]):
            done = subprocess.run(["chroot", "--userspec=65532:65532", str(first), *argv], text=True, capture_output=True, timeout=60)
            problems.check(done.returncode == 0, f"{argv[0]} in the image: {done.stderr or done.stdout}")


def lint(problems: Problems) -> None:
    dockerfile = DEPLOY / "Dockerfile"
    done = run([str(TOOLS / "hadolint"), "--no-color", str(dockerfile)])
    problems.check(done.returncode == 0, f"hadolint: {done.stdout}{done.stderr}")
    text = dockerfile.read_text()
    toolchain = re.search(r'channel = "(.*)"', (ROOT / "rust-toolchain.toml").read_text())[1]
    problems.check(f"rust:{toolchain}-" in text, f"the Dockerfile builds with another Rust than {toolchain}")
    version = re.search(r'\[workspace.package\]\nversion = "(.*)"', (ROOT / "Cargo.toml").read_text())[1]
    problems.check(f"ARG VERSION={version}\n" in text, f"the image's label says another version than {version}")
    chart = (DEPLOY / "helm" / "terrace" / "Chart.yaml").read_text()
    problems.check(f"\nversion: {version}\nappVersion: {version}\n" in chart, f"the chart says another version than {version}")
    last = text[text.rindex("\nFROM "):]
    problems.check("USER 65532:65532" in last and "scratch" in last.split("\n")[1], "the last stage is root, or not empty")


needed = [name for name in ("mkfs.xfs", "mkfs.ext4", "cargo") if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
if "libgssapi_krb5.so.2" not in run(["/sbin/ldconfig", "-p"]).stdout:
    needed.append("libgssapi_krb5.so.2")
if needed:
    print(f"{', '.join(needed)} not found", file=sys.stderr)
    sys.exit(LACKING)
problems = Problems()
lint(problems)
with tempfile.TemporaryDirectory() as scratch:
    os.mkdir(f"{scratch}/context")
    context(problems, Path(scratch, "context"))
    rootfs(problems, Path(scratch), os.environ["TERRACE_BINARY"])
problems.end("image")
