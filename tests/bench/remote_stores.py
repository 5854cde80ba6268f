"""The places of remote stores, for their measurement: a bucket, and a bundle on a web server."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import S3Store

from tests.engine.storage.bundle.publisher import NAME, PUBLIC_KEY, Publisher, WebServer, certificate
from tests.engine.storage.peers import binary
from tests.engine.storage.processes import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ACCESS_KEY, SECRET_KEY = "bench", "bench-secret-key"
BUCKET = "policies"
PATH = "/policies.bundle"

Remote = tuple[dict[str, Any], "Callable[[Mapping[str, bytes]], object]"]
"""Settings of a store, and how its policies are changed."""


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[Remote | None]:
    """Start an S3 server; nothing where there is none."""
    program = binary("versitygw")
    if not program.is_file():
        yield None
        return
    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    (folder / "s3" / BUCKET).mkdir(parents=True)
    server = ServerProcess(
        lambda port: [str(program), "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(folder / "s3")],
        folder / "versitygw.log",
        {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
    )
    host = f"127.0.0.1:{server.port}"
    client = S3Store(
        BUCKET,
        endpoint=f"http://{host}",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        region="us-east-1",
    )

    def put(contents: Mapping[str, bytes]) -> None:
        for path, content in contents.items():
            obstore.put(client, path, content)

    options = f"region=us-east-1&endpoint={host}&use_path_style=true&disable_https=true"
    try:
        yield {"bucket": f"s3://{BUCKET}?{options}", "workDir": str(folder / "work")}, put
    finally:
        server.stop()


@contextlib.contextmanager
def bundle(folder: Path) -> Iterator[Remote]:
    """Start a web server with a bundle."""
    cert, key = certificate(folder / "tls")
    server = WebServer(cert, key)
    publisher = Publisher(lambda data: server.files.__setitem__(PATH, data))
    settings = {
        "url": f"{server.url}{PATH}",
        "name": NAME,
        "publicKeys": [{"data": PUBLIC_KEY}],
        "cacheDir": str(folder / "cache"),
        "https": {"caCert": str(cert)},
    }
    try:
        yield settings, publisher.together
    finally:
        server.stop()
