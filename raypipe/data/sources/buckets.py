"""S3 buckets that sources are read from: what is listed is what is read, or the reading ends."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, cast

import obstore
import pyarrow.fs as pafs

from raypipe.data.sources.place import SourceFile, changed
from raypipe.data.sources.ranged import RangedFile
from raypipe.errors import ObjectChanged, ObjectMissing, StoreError
from raypipe.storage.s3 import S3Bucket
from raypipe.storage.store import ObjectInfo

RETRIES: Any = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
}
"""The only retries there are, so that a source that is slow or throttles gets no more requests than these."""

S3 = "s3://"

PAGE = 1000
"""Objects S3 lists in one answer at most."""

NO_ETAG = "changed "
"""Before the time of the last change, where a server gives no ETag."""


class Objects:
    """The Place of one bucket's objects."""

    def __init__(self, bucket: str) -> None:
        self.start = f"{S3}{bucket}/"
        self._bucket = source_bucket(bucket)

    def file(self, path: str) -> SourceFile | None:
        info = self._bucket.info(path) if path else None
        return None if info is None else self._listed(info)

    def below(self, path: str, is_deep: bool = True) -> list[SourceFile]:
        del is_deep  # S3 lists all in one go
        return [self._listed(info) for info in self._bucket.below(path)]

    def is_folder(self, path: str) -> bool:
        return bool(self.below(path))

    def open(self, file: SourceFile) -> RangedFile:
        assert file.size_bytes is not None  # S3 always tells
        read_range = partial(self._bucket.read_pinned, file.uri.removeprefix(self.start), file.pin)
        return RangedFile(read_range, file.size_bytes)

    def _listed(self, info: ObjectInfo) -> SourceFile:
        uri = self.start + info.key
        return SourceFile(uri, uri, info.size_bytes, info.etag, info.etag)


class SourceBucket(S3Bucket):
    """One bucket, read with the credentials of the environment, or without where there are none."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{S3}{name}", retries=RETRIES, is_public=True, find_region=_region)

    def info(self, key: str) -> ObjectInfo | None:
        """One object; None when it is not there."""
        try:
            meta: Any = self._once(lambda: obstore.head(self._backend, key), key)
        except ObjectMissing:
            return None
        return _info(meta)

    def below(self, folder: str) -> list[ObjectInfo]:
        """All objects below a folder, without those that only stand for folders.

        Raises:
            StoreAccessError: there is no such bucket, or it may not be read.
            StoreError: S3 did not answer.
        """

        def collect() -> list[ObjectInfo]:
            pages: Any = cast(Any, obstore).list(self._backend, prefix=folder or None, chunk_size=PAGE)
            return [_info(meta) for page in pages for meta in page]

        objects = self._once(collect, folder)
        folders = {folder, *(key for info in objects for key in _folders(info.key))}
        return [info for info in objects if info.size_bytes or info.key not in folders]

    def read_pinned(self, key: str, etag: str, start: int, stop: int) -> memoryview:
        """Bytes [start, stop) of the object that had `etag` when it was listed.

        Raises:
            SourceChanged: another object is there now, or none.
            StoreError: S3 did not answer.
        """
        where = f"{self.uri}/{key}"
        try:
            return self._once(lambda: self._read(key, etag, start, stop), key)
        except (ObjectChanged, ObjectMissing) as error:
            how = "was deleted" if isinstance(error, ObjectMissing) else "was written anew"
            raise changed(where, how) from None

    def _read(self, key: str, etag: str, start: int, stop: int) -> memoryview:
        options: Any = {"range": (start, stop)}
        if not etag.startswith(NO_ETAG):
            options["if_match"] = etag
        answer = obstore.get(self._backend, key, options=options)
        if _info(answer.meta).etag != etag:  # some servers take no notice of If-Match
            raise ObjectChanged(f"{self.uri}/{key} changed")
        data = memoryview(answer.bytes())
        if len(data) != stop - start:
            raise StoreError(f"{self.uri}/{key}: {len(data)} bytes came, not {stop - start}", "run it again")
        return data


def source_bucket(name: str) -> SourceBucket:
    """The bucket, one a process and settings: connecting takes longer than reading a small file."""
    return _source_bucket(name, tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@lru_cache(maxsize=16)
def _source_bucket(name: str, settings: tuple[tuple[str, str], ...]) -> SourceBucket:
    del settings
    return SourceBucket(name)


def _info(meta: Any) -> ObjectInfo:
    etag = meta["e_tag"] or f"{NO_ETAG}{meta['last_modified'].isoformat()}"
    return ObjectInfo(str(meta["path"]), int(meta["size"]), str(etag))


def _folders(key: str) -> list[str]:
    """The folders that a key lies in."""
    parts = key.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _region(bucket: str) -> str | None:
    """Public data lies in any region, whatever this machine's settings say."""
    try:
        return str(pafs.resolve_s3_region(bucket))
    except OSError:  # whoever reads from the bucket is told what is wrong with it
        return None
