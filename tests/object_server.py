"""moto's S3 server in this process, and a client of boto3 that looks into it without our code.

python tests/object_server.py ADDRESS FILE     serves a bucket with a file until its input ends
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
SECRET = "not-to-be-shown"


class Objects:
    """What a bucket holds, as boto3 sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="id", aws_secret_access_key=SECRET
        )

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def tree(self, prefix: str) -> dict[str, bytes]:
        """Return name → bytes of what lies below a prefix, without the empty objects that stand for folders."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {key.removeprefix(f"{prefix}/"): self.get(key) for key in keys if not key.endswith("/")}

    def ask_for_keys(self, *, yes: bool) -> None:
        """Let the server refuse keys that it does not know, or none."""
        body = b"0" if yes else b"inf"  # requests that are answered without a key
        asked = Request(f"{self.url}/moto-api/reset-auth", data=body, headers={"Content-Type": "text/plain"})
        urlopen(asked).close()

    def environment(self) -> dict[str, str]:
        return environment(self.url)


def environment(url: str) -> dict[str, str]:
    """Return the variables by which a command finds a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def served(address: str = "127.0.0.1") -> Iterator[Objects]:
    """Yield a server with one empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    objects = Objects(f"http://{host}:{port}")
    objects.client.create_bucket(Bucket=BUCKET)
    try:
        yield objects
    finally:
        server.stop()


if __name__ == "__main__":
    with served(sys.argv[1]) as here:
        here.put(Path(sys.argv[2]).name, Path(sys.argv[2]).read_bytes())
        sys.stdout.write(f"{here.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
