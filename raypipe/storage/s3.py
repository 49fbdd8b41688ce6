"""S3 and everything that speaks its protocol; endpoint and credentials come from the usual AWS variables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlparse

import boto3
from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from raypipe.errors import ObjectMissing, RaypipeError, StoreAccessError, StoreError
from raypipe.storage.objects import ObjectStore


class S3Bucket(ObjectStore):
    """Store under a prefix of one bucket."""

    access_hint = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the machine's role"

    def __init__(self, uri: str) -> None:
        parsed = urlparse(uri)
        if not parsed.netloc:
            raise StoreAccessError(f"store {uri}: names no bucket", "s3://bucket/prefix")
        self._bucket = parsed.netloc
        session: Any = boto3.Session()  # its typed overloads know only services whose stubs are installed
        try:
            client: Any = session.client("s3", region_name=session.region_name or "us-east-1")
            endpoint = str(client.meta.endpoint_url)
            client.close()
            if session.get_credentials() is None:
                raise StoreAccessError(f"store {uri}: no AWS credentials found", self.access_hint)
            credentials = Boto3CredentialProvider(session)
        except (BotoCoreError, ValueError) as error:
            raise StoreAccessError(f"store {uri}: {error}", self.access_hint) from None
        is_aws = (urlparse(endpoint).hostname or "").endswith(".amazonaws.com")
        backend = S3Store(
            self._bucket,
            prefix=parsed.path.strip("/") or None,
            region=session.region_name or "us-east-1",
            endpoint=None if is_aws else endpoint,
            virtual_hosted_style_request=is_aws,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                "read_timeout": timedelta(seconds=20),  # silence, not the whole transfer: weights may be large
                "timeout": timedelta(hours=1),
            },
            retry_config={
                "max_retries": 3,
                "retry_timeout": timedelta(seconds=10),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=2),
                    "base": 2,
                },
            },
            credential_provider=credentials,
        )
        super().__init__(uri.rstrip("/"), backend)

    def _missing(self, where: str, details: str) -> RaypipeError:
        if "NoSuchBucket" in details:
            return StoreAccessError(f"{self.uri}: bucket '{self._bucket}' does not exist", "make it, or name another")
        return ObjectMissing(f"{where} does not exist")

    def _unanswered(self, where: str, reason: str, details: str) -> RaypipeError:
        if "NoSuchBucket" in details:
            return self._missing(where, details)
        for code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken"):
            if code in details:
                return StoreAccessError(f"{where}: access denied ({code})", self.access_hint)
        return StoreError(
            f"{where}: S3 did not answer: {reason}", "check AWS_ENDPOINT_URL and the network, then run again"
        )
