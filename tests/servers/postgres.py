"""PostgreSQL: one server of the distribution's package, on a free port of the loopback address.

PostgreSQL refuses to run as root: as root the data belongs to, and the server runs as, the account
`nobody`. Nothing of it is worth keeping, so it does not wait for the disk at the end; during the
tests it does (the catalog's promises are tested with real syncs).

Where there is an `openssl`, the server also speaks TLS, with a certificate for 127.0.0.1 and localhost from
a root in `TERRACE_TEST_POSTGRES_CA`.
"""

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path

from support import Run, Unavailable, free_ports, run

USER = "terrace"

# Everything that openssl would look for in the machine's configuration.
CERTIFICATES = """[req]
distinguished_name = name
prompt = no
[name]
CN = terrace test
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
"""


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
        environment = {}
        if shutil.which("openssl"):
            settings |= certificates(place, options)
            environment["TERRACE_TEST_POSTGRES_CA"] = str(place / "ca.pem")
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        process = self.run.spawn("postgres", [str(programs / "postgres"), "-D", str(data), *arguments],
                                 **options)
        url = f"host=127.0.0.1 port={port} user={USER} dbname=postgres"
        self.run.wait("postgres", process, 60, lambda: answers(url) and self.ready(programs, port))
        return {self.variable: url, **environment}

    @staticmethod
    def ready(programs: Path, port: int) -> bool:
        """Whether it lets clients in: while it starts it answers, and refuses them."""
        asked = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return not Path(asked[0]).exists() or subprocess.run(asked).returncode == 0

    @staticmethod
    def healthy(environment: dict[str, str]) -> bool:
        return answers(environment[Postgres.variable])


def certificates(place: Path, options: dict) -> dict[str, str]:
    """A root and a certificate that it signed, made by the server's account; the settings to use them."""
    (place / "openssl.cnf").write_text(CERTIFICATES)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "openssl.cnf"]
    for words in (
            ["req", "-x509", *key, "-extensions", "root", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"],
            ["req", "-new", *key, "-keyout", "server.key", "-out", "server.csr"],
            ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
             "-days", "2", "-extfile", "openssl.cnf", "-extensions", "server", "-out", "server.pem"]):
        run(["openssl", *words], **options)
    return {"ssl": "on", "ssl_cert_file": str(place / "server.pem"), "ssl_key_file": str(place / "server.key")}


def reachable(place: Path) -> None:
    """Refuses a run directory that the unprivileged account cannot enter, with the reason."""
    for directory in place.parents:
        if not directory.stat().st_mode & 0o001:
            raise Unavailable(f"the account nobody cannot enter {directory}")
