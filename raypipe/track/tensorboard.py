"""Event files below the run, for `tensorboard --logdir STORE/runs`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tensorboardX import SummaryWriter

from raypipe.storage import layout
from raypipe.storage.local import LocalFolder
from raypipe.track.events import Registered, Scalars
from raypipe.track.tracking import About

FLUSH_EVERY_S = 5


class TensorBoard:
    """Writes where TensorBoard can look while the run goes on; into S3 when it has ended."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._key = layout.tensorboard(about.run_id)
        self._apart = (
            None if isinstance(about.store, LocalFolder) else tempfile.TemporaryDirectory(prefix="raypipe-tb-")
        )
        self._folder = Path(about.store.uri, self._key) if self._apart is None else Path(self._apart.name)
        self._writer = SummaryWriter(str(self._folder), flush_secs=FLUSH_EVERY_S)
        self._writer.add_text("asked", f"```\n{json.dumps(dict(about.asked), indent=1, default=str)}\n```")
        self._step = 0

    def take(self, message: Scalars | Registered) -> None:
        if isinstance(message, Registered):
            self._writer.add_text("registered", f"{message.model}@{message.version}")
            return
        self._step = self._step if message.step is None else message.step
        group = message.stage if message.trial is None else f"{message.stage}/{message.trial}"
        for name, value in message.values.items():
            self._writer.add_scalar(f"{group}/{name}", value, self._step, walltime=message.time)

    def close(self, *, failed: bool) -> None:
        self._writer.close()
        if self._apart is None:
            return
        for file in sorted(self._folder.iterdir()):
            self._about.store.write(f"{self._key}/{file.name}", file.read_bytes())
        self._apart.cleanup()
