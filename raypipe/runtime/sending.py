"""What a cluster is sent: this raypipe and a folder of the user's, no larger than it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raypipe.errors import SpecError, causes

PACKAGE = Path(__file__).parent.parent
"""This raypipe, as a cluster gets it."""

UPLOAD_EXCLUDES = [".git/", ".venv/", "__pycache__/", ".raypipe/"]

TOO_LARGE = re.compile(r"exceeds the maximum size of (?P<mib>[\d.]+)MiB|body size (?P<bytes>\d+) exceeded")
"""How Ray's client and its dashboard refuse a folder."""


@contextmanager
def sending(folder: Path) -> Iterator[None]:
    """Ray packs a folder and sends it to a cluster in the block.

    Raises:
        SpecError: it is larger than Ray takes.
    """
    try:
        yield
    except Exception as error:  # Ray has a type of its own for each way a folder can go
        found = next(filter(None, (TOO_LARGE.search(str(each)) for each in causes(error))), None)
        if found is None:
            raise
        limit_mib = float(found["mib"] or int(found["bytes"]) / 2**20)
        raise SpecError(
            f"{folder} is too large to send to the cluster: zipped, it must be below {limit_mib:.0f} MiB",
            "name what the model's code does not need in a .gitignore or .rayignore there; keep data in s3://",
        ) from None
