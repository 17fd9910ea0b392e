"""PostgreSQL: one server of the distribution's package, on a free port of the loopback address.

PostgreSQL refuses to run as root: as root the data belongs to, and the server runs as, the account
`nobody`. Nothing of it is worth keeping, so it does not wait for the disk at the end; during the
tests it does (the catalog's promises are tested with real syncs).
"""

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path

from support import Run, Unavailable, free_ports, run

USER = "terrace"


def find_programs() -> Path:
    """The directory of `initdb` and `postgres`: Debian keeps them away from the path."""
    found = shutil.which("initdb")
    if found and shutil.which("postgres"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql")
    places = [p / "bin" for p in versions.iterdir()] if versions.is_dir() else []
    places = [p for p in places if (p / "initdb").exists() and (p / "postgres").exists()]
    if not places:
        raise Unavailable("initdb and postgres not found (package postgresql)")
    return max(places, key=lambda place: int("".join(filter(str.isdigit, place.parent.name)) or 0))


def answers(url: str) -> bool:
    """Whether the server speaks its protocol: it answers a request for TLS with one letter."""
    port = int(url.rpartition("port=")[2].split()[0])
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))
        return connection.recv(1) in (b"N", b"S")


class Postgres:
    """One server with one database."""

    name = "postgres"
    variable = "TERRACE_TEST_POSTGRES"

    def __init__(self, runs: Run):
        self.run = runs

    @staticmethod
    def prepare() -> Path:
        """The directory of the programs."""
        return find_programs()

    def up(self) -> dict[str, str]:
        programs = self.prepare()
        place = self.run.place("postgres")
        data = place / "data"
        options: dict = {"cwd": place}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(place, nobody.pw_uid, nobody.pw_gid)
            reachable(place)
            options.update(user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
        run([str(programs / "initdb"), "-D", str(data), "-U", USER, "--auth=trust", "--encoding=UTF8",
             "--locale=C", "--no-sync"], timeout=120, **options)
        port = free_ports(1)[0]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "32MB",
            "autovacuum_naptime": "5min",
            "log_min_messages": "warning",
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        process = self.run.spawn("postgres", [str(programs / "postgres"), "-D", str(data), *arguments],
                                 **options)
        url = f"host=127.0.0.1 port={port} user={USER} dbname=postgres"
        self.run.wait("postgres", process, 60, lambda: answers(url) and self.ready(programs, port))
        return {self.variable: url}

    @staticmethod
    def ready(programs: Path, port: int) -> bool:
        """Whether it lets clients in: while it starts it answers, and refuses them."""
        asked = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return not Path(asked[0]).exists() or subprocess.run(asked).returncode == 0

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        return answers(environment[Postgres.variable])


def reachable(place: Path) -> None:
    """Refuses a run directory that the unprivileged account cannot enter, with the reason."""
    for directory in place.parents:
        if not directory.stat().st_mode & 0o001:
            raise Unavailable(f"the account nobody cannot enter {directory}")
