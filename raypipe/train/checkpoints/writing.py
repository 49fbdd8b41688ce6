"""How a checkpoint gets into the store: every rank its part and a receipt, rank 0 the index and, last, the manifest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from raypipe.errors import StoreError
from raypipe.spec.train import TrainSpec
from raypipe.storage import Store, layout
from raypipe.storage.publish import MANIFEST, FileDigest, Manifest, sha256
from raypipe.train.checkpoints import index, retention
from raypipe.train.checkpoints.image import PartImage
from raypipe.train.checkpoints.index import BLOCK_BYTES, FORMAT, INDEX, Index, Part, TrainState

FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 1.0
"""Rank 0 looks for the others' receipts in the store at growing intervals."""


@dataclass(frozen=True)
class Writer:
    """One rank's part in writing a checkpoint.

    Attributes:
        token: of this attempt at the training; the same on every rank.
        parallel: how the ranks hold the model; None: nobody says.
    """

    store: Store
    run_id: str
    spec: TrainSpec
    rank: int
    size: int
    token: str
    parallel: str | None = None

    def write(self, image: PartImage, state: TrainState, pause: Callable[[float], None] = time.sleep) -> None:
        """Write what this rank has to; on rank 0 it returns when the whole checkpoint is there.

        Safe to repeat after an error, with the same image and state.

        Args:
            pause: waits so many seconds, or raises to give up.
        Raises:
            StoreError: storage did not answer, or will not.
        """
        prefix = layout.checkpoint(self.run_id, state.step)
        image.wait()
        part = self._write_part(prefix, image)
        if self.rank:
            self.store.write(f"{prefix}/{part.object.removesuffix('.safetensors')}.json", part.to_json())
            return
        parts = (part, *self._other_parts(prefix, pause))
        made = Index(
            format=FORMAT,
            world_size=self.size,
            num_shares=None if self.spec.elastic is None else self.spec.elastic.max,
            parallel=self.parallel,
            state=state.__dict__,
            parts=parts,
        )
        self._publish(prefix, json.dumps(made.model_dump(mode="json")).encode())
        with suppress(StoreError):  # the new one counts; what stays of older ones takes room and harms nobody
            self._tidy(prefix, state)

    def _write_part(self, prefix: str, image: PartImage) -> Part:
        data = image.data
        blocks = tuple(sha256(data[start : start + BLOCK_BYTES]) for start in range(0, len(data), BLOCK_BYTES))
        name = f"{index.part_name(self.rank, self.size, self.token)}.safetensors"
        self.store.write(f"{prefix}/{name}", data)
        return Part(object=name, size_bytes=len(data), blocks=blocks, spans=image.spans)

    def _other_parts(self, prefix: str, pause: Callable[[float], None]) -> list[Part]:
        """The receipts of all other ranks; the store is where they meet, so that no rank's steps wait for another's."""
        parts: dict[int, Part] = {}
        look_s = FIRST_LOOK_S
        while len(parts) < self.size - 1:
            for info in self.store.list(prefix):
                rank = index.rank_of_receipt(info.key.rpartition("/")[2], self.size, self.token)
                if rank is not None and rank not in parts:
                    parts[rank] = self._receipt(info.key)
                    look_s = FIRST_LOOK_S
            if len(parts) < self.size - 1:
                pause(look_s)
                look_s = min(2 * look_s, LONGEST_LOOK_S)
        return [parts[rank] for rank in sorted(parts)]

    def _receipt(self, key: str) -> Part:
        try:
            return Part.model_validate_json(self.store.read(key))
        except ValidationError:
            raise StoreError(f"{self.store.uri}/{key} is damaged: not a part's description") from None

    def _publish(self, prefix: str, data: bytes) -> None:
        name = index.index_name(self.token)
        self.store.write(f"{prefix}/{name}", data)
        manifest = Manifest(files={INDEX: FileDigest(sha256=sha256(data), size_bytes=len(data), object=name)})
        self.store.write(f"{prefix}/{MANIFEST}", manifest.to_json())

    def _tidy(self, prefix: str, state: TrainState) -> None:
        """Delete older checkpoints, and what other attempts left here."""
        for info in self.store.list(prefix):
            name = info.key.rpartition("/")[2]
            if self.token not in name and name != MANIFEST:
                self.store.delete(info.key)
        complete, begun = retention.stored_steps(self.store, self.run_id)
        for step in retention.steps_to_delete(complete, state, self.spec):
            retention.delete(self.store, self.run_id, step)
        for step in begun:
            if step < state.step:
                retention.delete(self.store, self.run_id, step)
