"""A small S3 client for seeding buckets: signed PUT and DELETE, standard library only.

One connection per thread, kept open. Signature version 4 with an unsigned payload, which a server on
the loopback address accepts over plain HTTP.
"""

import datetime
import hashlib
import hmac
import http.client
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

UNSIGNED = "UNSIGNED-PAYLOAD"


class S3Client:
    """Writes objects below one endpoint."""

    def __init__(self, environment: dict[str, str]):
        self.host = urlsplit(environment["AWS_ENDPOINT_URL"]).netloc
        self.key = environment["AWS_ACCESS_KEY_ID"]
        self.secret = environment["AWS_SECRET_ACCESS_KEY"]
        self.region = environment["AWS_REGION"]
        self.local = threading.local()

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Writes one object, and makes the bucket when it is the first one in it."""
        self.request("PUT", bucket, key, body)

    def delete(self, bucket: str, key: str) -> None:
        """Removes one object."""
        self.request("DELETE", bucket, key, b"")

    def put_tree(self, bucket: str, prefix: str, root: Path, threads: int = 4) -> int:
        """Writes every file below `root` at `prefix/<path>`; how many."""
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        return self.put_files(bucket, ((f"{prefix}/{path.relative_to(root)}", path) for path in paths), threads)

    def put_files(self, bucket: str, files: Iterable[tuple[str, Path]], threads: int = 4) -> int:
        """Writes files at the keys named beside them; how many."""
        with ThreadPoolExecutor(threads) as pool:
            return sum(1 for _ in pool.map(lambda file: self.put(bucket, file[0], file[1].read_bytes()), files))

    def keep_versions(self, bucket: str) -> None:
        """Lets a bucket keep what is overwritten or removed from now on."""
        body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        self.request("PUT", bucket, "", body, query="versioning=")

    def request(self, method: str, bucket: str, key: str, body: bytes, query: str = "") -> None:
        """One signed request. Raises with the server's answer when it refuses."""
        path = quote(f"/{bucket}/{key}", safe="/-_.~")
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = http.client.HTTPConnection(self.host, timeout=60)
        target = f"{path}?{query}" if query else path
        connection.request(method, target, body=body, headers=self.sign(method, path, query))
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {said[:300]!r}")

    def sign(self, method: str, path: str, query: str = "") -> dict[str, str]:
        """Headers of a request, signature included. The query is encoded, its names in order."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        headers = {"host": self.host, "x-amz-content-sha256": UNSIGNED, "x-amz-date": now}
        names = ";".join(headers)
        canonical = "\n".join([method, path, query, *(f"{name}:{value}" for name, value in headers.items()), "",
                               names, UNSIGNED])
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in (now[:8], self.region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        headers["Authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, "
                                    f"SignedHeaders={names}, Signature={signature}")
        return headers
