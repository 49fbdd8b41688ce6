"""Checkpoints: what is saved, by whom, how it gets into the store, what stays there, and how it is read back.

Tensors lie in safetensors, one file a rank; the rest is JSON. Nothing is pickled. Every rank copies what it holds into
a host buffer (`spans`, `image`) while its step waits, and a thread writes that (`saving`, `writing`). The manifest
comes last: an interrupted write has none and is never chosen, a damaged checkpoint is passed over while an older one
can be read (`restoring`, `reading`). Another number of workers reads it too, at the end of an epoch.
"""

from raypipe.train.checkpoints.index import TrainState
from raypipe.train.checkpoints.reading import StoredCheckpoint, StoredTensor, open_checkpoint
from raypipe.train.checkpoints.restoring import parallel_of_newest, restore
from raypipe.train.checkpoints.retention import clear, stored_steps
from raypipe.train.checkpoints.saving import Saver, Status
from raypipe.train.checkpoints.spans import Span, cut, whole

__all__ = [
    "Saver",
    "Span",
    "Status",
    "StoredCheckpoint",
    "StoredTensor",
    "TrainState",
    "clear",
    "cut",
    "open_checkpoint",
    "parallel_of_newest",
    "restore",
    "stored_steps",
    "whole",
]
