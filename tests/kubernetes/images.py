"""Container images without an engine or a registry: files packed as the runtime imports them.

    archive.tar            what `docker save` writes, one layer each
    ├── manifest.json      [{Config, RepoTags, Layers}]
    ├── <digest>.json      what runs, as whom
    └── <digest>.tar       files, all of root and of one time
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PAUSE = "localhost/pause:1"
WORKLOAD = "docker.io/library/busybox:1"


def pack(archive: Path, name: str, tree: Path, config: dict) -> None:
    """Writes an image with the files of a tree."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        files.add(tree, arcname=".", filter=of_root)
    layers = layer.getvalue()
    digest = hashlib.sha256(layers).hexdigest()
    said = json.dumps({"architecture": "amd64", "os": "linux", "config": config,
                       "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}).encode()
    named = f"{hashlib.sha256(said).hexdigest()}.json"
    manifest = json.dumps([{"Config": named, "RepoTags": [name], "Layers": [f"{digest}.tar"]}]).encode()
    with tarfile.open(archive, "w") as image:
        for path, data in ((f"{digest}.tar", layers), (named, said), ("manifest.json", manifest)):
            about = tarfile.TarInfo(path)
            about.size = len(data)
            image.addfile(about, io.BytesIO(data))


def of_root(about: tarfile.TarInfo) -> tarfile.TarInfo:
    about.uid = about.gid = 0
    about.uname = about.gname = "root"
    return about


def ours(archive: Path, place: Path, binary: Path, name: str) -> None:
    """Terrace's, with the files and the words of the last stage of the Dockerfile."""
    stripped, tree = place / "terrace.stripped", place / "terrace.files"
    subprocess.run(["strip", "--strip-debug", "-o", str(stripped), str(binary)], check=True)
    subprocess.run([str(DEPLOY / "image" / "rootfs.sh"), str(stripped), str(tree)], check=True,
                   env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
    text = (DEPLOY / "Dockerfile").read_text()
    last = text[text.rindex("\nFROM "):].replace("\\\n", " ")
    words = lambda key: json.loads(re.search(rf"^{key} (\[.*\])$", last, re.MULTILINE)[1])  # noqa: E731
    pack(archive, name, tree, {
        "User": re.search(r"^USER (.*)$", last, re.MULTILINE)[1], "Entrypoint": words("ENTRYPOINT"), "Cmd": words("CMD"),
        "Env": re.search(r"^ENV (.*)$", last, re.MULTILINE)[1].split()})
    shutil.rmtree(tree)
    stripped.unlink()


def of_program(archive: Path, place: Path, name: str, program: Path) -> None:
    """A static program and nothing else, as the sidecars of Kubernetes are packed."""
    tree = place / f"{program.name}.files"
    tree.mkdir()
    shutil.copy(program, tree / program.name)
    pack(archive, name, tree, {"Entrypoint": [f"/{program.name}"], "Env": ["PATH=/"]})
    shutil.rmtree(tree)


def workload(directory: Path) -> None:
    """The images of pods that read and write, and of the process that holds a pod's namespaces: one busybox.

    Its program is taken out of Debian's package without installing it."""
    subprocess.run(["apt-get", "-q", "download", "busybox-static"], cwd=directory, check=True, capture_output=True)
    package = next(directory.glob("busybox-static_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(directory / "package")], check=True)
    tree = directory / "files"
    for path in ("bin", "tmp", "etc", "proc", "sys", "dev"):
        (tree / path).mkdir(parents=True)
    busybox = next(path for path in (directory / "package").glob("**/bin/busybox"))
    shutil.copy(busybox, tree / "bin" / "busybox")
    for applet in subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    (tree / "tmp").chmod(0o1777)
    pack(directory / "workload.tar", WORKLOAD, tree, {"Cmd": ["sh"], "Env": ["PATH=/bin"]})
    pack(directory / "pause.tar", PAUSE, tree, {"Entrypoint": ["/bin/tail", "-f", "/dev/null"], "Env": ["PATH=/bin"]})
    shutil.rmtree(directory / "package")
    shutil.rmtree(tree)
