"""What tests of the data room may ask for."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest


@pytest.fixture
def unprivileged(tmp_path):
    """A block in which this process may read no more than what permissions allow."""

    @contextmanager
    def without_root():
        if os.geteuid():
            yield
            return
        ours = [folder for folder in (tmp_path, *tmp_path.parents) if folder.stat().st_mode & 0o5 != 0o5]
        modes = {folder: folder.stat().st_mode for folder in ours}
        for folder in ours:
            os.chmod(folder, 0o755)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
            for folder, mode in modes.items():
                os.chmod(folder, mode)

    return without_root
