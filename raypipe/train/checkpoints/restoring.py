"""From which checkpoint a training goes on: rank 0 lists them, and all ranks read the newest that each of them can."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from raypipe.errors import CheckpointError, DigestMismatch, ObjectMissing
from raypipe.storage import Store, layout
from raypipe.train.checkpoints.index import TrainState
from raypipe.train.checkpoints.reading import StoredCheckpoint, open_checkpoint, read_index
from raypipe.train.checkpoints.retention import stored_steps
from raypipe.train.rows import World
from raypipe.train.together import agreed, from_rank_0, gathered


def restore(
    store: Store,
    run_id: str,
    fingerprint: str,
    world: World,
    load: Callable[[StoredCheckpoint], None],
    num_shares: int | None = None,
) -> tuple[TrainState | None, list[str]]:
    """Go on from the newest checkpoint of a run that every rank can read; called by all ranks.

    Args:
        load: takes over what this rank needs of the tensors; called again, with an older one, where one is damaged.
        num_shares: that the rows of an epoch are cut into where workers are elastic; None: one a worker.
    Returns:
        Where the training stood, None where no checkpoint was ever complete; and what was passed over, in words.
    Raises:
        CheckpointError: there are complete checkpoints and none can be used; or the newest readable one belongs to a
            training with other settings, or another version of raypipe wrote it. The same on every rank.
        StoreError: the store did not answer one of them. The same on every rank.
    """
    # Each rank listing for itself would follow its own view of the store, and one may lag behind.
    complete, begun = from_rank_0(lambda: stored_steps(store, run_id), world)
    passed_over: list[str] = []
    for step in complete:
        state, reason = _try(store, run_id, step, fingerprint, world, load, num_shares)
        if state is not None:
            return state, [f"the checkpoint of a later step was passed over: {each}" for each in passed_over]
        passed_over.append(reason)
    if passed_over:
        raise CheckpointError(
            f"{store.uri}/{layout.checkpoints(run_id)}: none of the {len(passed_over)} checkpoint(s) can be read, so "
            f"the training cannot go on: {'; '.join(passed_over)[:1000]}",
            "give back what is missing (a backup, an older bucket version, the number of workers), or begin the "
            f"training anew: --run {run_id} --fresh",
        )
    steps = ", ".join(str(step) for step in begun)
    return None, [f"no checkpoint is complete (of step {steps} parts are there), so nothing is kept"] if steps else []


def _try(
    store: Store,
    run_id: str,
    step: int,
    fingerprint: str,
    world: World,
    load: Callable[[StoredCheckpoint], None],
    num_shares: int | None,
) -> tuple[TrainState | None, str]:
    """The state, on every rank; or why one of them could not use this checkpoint."""

    def use() -> tuple[TrainState | None, str]:
        try:
            found = open_checkpoint(store, run_id, step, fingerprint)
            then, now = (found.num_shares, found.world_size), (num_shares, world.size)
            if found.is_in_mid_epoch and (then[0] != now[0] or (num_shares is None and then[1] != now[1])):
                return None, (
                    f"step {step} is in mid-epoch of {_cut(*then)}, and here are {_cut(*now)}: which rows were seen in "
                    "it follows from that; at the end of an epoch any number of workers can go on"
                )
            load(found)
        except (DigestMismatch, ObjectMissing) as error:  # ObjectMissing: a part was lost, or deleted while it was read
            return None, f"worker {world.rank}: {error.message}" if world.size > 1 else error.message
        return found.state, ""

    outcome = agreed(use, world)
    reason = next((reason for _, reason in gathered(outcome, world) if reason), "")
    return (None, reason) if reason else outcome


def parallel_of_newest(store: Store, run_id: str) -> str | None:
    """How the ranks held the model when the newest checkpoint of a run that can be read was written; None: it does not
    say, or there is none."""
    for step in stored_steps(store, run_id)[0]:
        with suppress(DigestMismatch, ObjectMissing, CheckpointError):  # told when it is to be gone on from
            return read_index(store, layout.checkpoint(run_id, step)).parallel
    return None


def _cut(num_shares: int | None, world_size: int) -> str:
    return f"{world_size} worker(s)" if num_shares is None else f"up to {num_shares} workers"
