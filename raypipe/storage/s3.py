"""S3 and everything that speaks its protocol; endpoint and credentials come from the usual AWS variables."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlparse

import boto3
from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from raypipe.errors import ObjectMissing, RaypipeError, StoreAccessError, StoreError
from raypipe.spec.addresses import check_address, refuse_userinfo
from raypipe.storage.objects import ObjectStore

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")

FEW_RETRIES: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}
"""Inside one call; the store's own retries are around them."""

SILENCE_TIMEOUT = timedelta(seconds=20)
"""Without a byte from the server; not of the whole transfer, since weights may be large."""


class S3Bucket(ObjectStore):
    """Store under a prefix of one bucket.

    Args:
        retries: obstore's RetryConfig: how it repeats one request, with jitter.
        is_public: whether a bucket may be read without credentials, where there are none.
        find_region: bucket on AWS -> its region; without it the usual settings tell.
    """

    access_hint = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the machine's role"

    def __init__(
        self,
        uri: str,
        *,
        retries: Any = FEW_RETRIES,
        is_public: bool = False,
        find_region: Callable[[str], str | None] | None = None,
    ) -> None:
        parsed = urlparse(uri)
        if not parsed.netloc:
            raise StoreAccessError(f"store {uri}: names no bucket", "s3://bucket/prefix")
        self._bucket = parsed.netloc
        for name in ENDPOINT_VARIABLES:
            refuse_userinfo(name, os.environ.get(name, ""))  # before boto3, whose message would repeat it
        session: Any = boto3.Session()  # its typed overloads know only services whose stubs are installed
        try:
            client: Any = session.client("s3", region_name=session.region_name or "us-east-1")
            endpoint = str(client.meta.endpoint_url)
            client.close()
            check_address(endpoint)
            is_anonymous = session.get_credentials() is None
            if is_anonymous and not is_public:
                raise StoreAccessError(f"store {uri}: no AWS credentials found", self.access_hint)
            credentials = None if is_anonymous else Boto3CredentialProvider(session)
        except (BotoCoreError, ValueError) as error:
            hint = "check AWS_ENDPOINT_URL" if isinstance(error, ValueError) else self.access_hint
            raise StoreAccessError(f"store {uri}: {error}", hint) from None
        is_aws = (urlparse(endpoint).hostname or "").endswith(".amazonaws.com")
        region = find_region(self._bucket) if is_aws and find_region else None
        backend = S3Store(
            self._bucket,
            prefix=parsed.path.strip("/") or None,
            region=region or session.region_name or "us-east-1",
            endpoint=None if is_aws else endpoint,
            virtual_hosted_style_request=is_aws,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                "read_timeout": SILENCE_TIMEOUT,
                "timeout": timedelta(hours=1),
            },
            retry_config=retries,
            skip_signature=is_anonymous,
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
