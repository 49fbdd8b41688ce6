"""What is read back of a checkpoint: to the bit, by any number of ranks, and nothing that is half there or not ours."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch

from raypipe.errors import CheckpointError, DigestMismatch
from raypipe.storage import Store, layout
from raypipe.storage.publish import MANIFEST, FileDigest, Manifest, sha256
from raypipe.testing.fakes import MemoryStore
from raypipe.train.checkpoints import Span, StoredCheckpoint, TrainState, clear, cut, reading, restore, whole
from raypipe.train.checkpoints.index import INDEX
from raypipe.train.rows import World
from tests.unit.train.side_by_side import TENSORS, SideBySide, opened, same_bits, state
from tests.unit.train.stores import CountingStore

ALONE = World()


def _objects(store: Store, step: int, ending: str) -> list[str]:
    return [info.key for info in store.list(layout.checkpoint("r1", step)) if info.key.endswith(ending)]


def _restored(store: Store, world: World = ALONE) -> tuple[TrainState | None, list[str], dict[str, torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}

    def load(found: StoredCheckpoint) -> None:
        tensors.clear()
        tensors.update(found.read())

    where, notes = restore(store, "r1", "f", world, load)
    return where, notes, tensors


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_checkpoint_saved_by_any_number_of_ranks_is_read_to_the_bit(size: int) -> None:
    store = MemoryStore()
    SideBySide(store, size).save(state(12))

    found = opened(store, 12)
    assert found.world_size == size and found.state == state(12)
    assert same_bits(found.read(), TENSORS)


def test_restore_gives_state_and_tensors_of_the_newest() -> None:
    store = MemoryStore()
    ranks = SideBySide(store, 1)
    ranks.save(state(12))
    ranks.save(state(13))

    where, notes, tensors = _restored(store)

    assert where == state(13) and notes == [] and same_bits(tensors, TENSORS)


def test_checkpoint_read_by_prefix_leaves_it_out_of_the_names() -> None:
    store = MemoryStore()
    SideBySide(store, 2).save(state(12))

    assert opened(store, 12).read("optimizer/").keys() == {"0/exp_avg"}


@pytest.mark.parametrize(("written", "read"), [(3, 2), (2, 3), (4, 1), (1, 4)])
def test_checkpoint_slices_are_read_at_another_number_of_ranks(written: int, read: int) -> None:
    store = MemoryStore()
    rows = torch.arange(70.0).reshape(7, 10)
    shards = [Span(part, (7, 10), start) for part, start in _rows_of(rows, written)]
    SideBySide(store, written).save_spans(state(6, epoch_step=0), [{"model/rows": span} for span in shards])

    for part, start in _rows_of(rows, read):
        into = torch.full_like(part, -1)
        opened(store, 6).read_into({"model/rows": Span(into, (7, 10), start)})
        assert torch.equal(into, part)


def _rows_of(rows: torch.Tensor, size: int) -> list[tuple[torch.Tensor, int]]:
    """As FSDP cuts them: equal chunks of rows, the last ones smaller or empty."""
    step = -(-len(rows) // size)
    return [(rows[rank * step : (rank + 1) * step], min(rank * step, len(rows)) * 10) for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_cut_gives_every_byte_to_one_rank_and_equal_shares(size: int) -> None:
    shares = [cut(TENSORS, rank, size) for rank in range(size)]

    total = sum(tensor.nbytes for tensor in TENSORS.values())
    assert sum(span.values.nbytes for share in shares for span in share.values()) == total
    for share in shares:
        assert abs(sum(span.values.nbytes for span in share.values()) - total / size) <= 16
    for name, tensor in TENSORS.items():
        runs = sorted((share[name].start, share[name].stop) for share in shares if name in share)
        assert [start for start, _ in runs] == [0, *(stop for _, stop in runs[:-1])] and runs[-1][1] == tensor.numel()


def test_checkpoint_slice_fetches_the_blocks_it_lies_in_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1024)
    monkeypatch.setattr("raypipe.train.checkpoints.writing.BLOCK_BYTES", 1024)
    store = CountingStore()
    values = torch.arange(10_000.0)
    SideBySide(store, 1).save(state(1), {"model/a": values, "model/b": -values})

    into = torch.empty(300)
    opened(store, 1).read_into({"model/b": Span(into, (10_000,), 5000)})

    assert torch.equal(into, -values[5000:5300])
    assert sum(stop - start for _, start, stop in store.ranges) <= 300 * 4 + 2 * 1024
    store.ranges.clear()
    assert torch.equal(opened(store, 1).read()["model/b"], -values)
    assert max(stop - start for _, start, stop in store.ranges) == reading.READ_BLOCKS * 1024


def test_checkpoint_part_is_a_safetensors_file() -> None:
    store = MemoryStore()
    SideBySide(store, 1).save(state(12))

    (key,) = _objects(store, 12, ".safetensors")
    assert same_bits(safetensors.torch.load(store.read(key)), TENSORS)


def test_checkpoint_none_there_gives_none() -> None:
    assert _restored(MemoryStore()) == (None, [], {})


def test_checkpoint_interrupted_write_is_passed_over_without_a_word() -> None:
    store = MemoryStore()
    ranks = SideBySide(store, 1)
    ranks.save(state(10))
    ranks.save(state(20))
    store.delete(f"{layout.checkpoint('r1', 20)}/{MANIFEST}")

    where, notes, _ = _restored(store)

    assert where is not None and where.step == 10
    assert notes == [], "an interrupted write was never a checkpoint"


def test_checkpoint_only_interrupted_writes_are_told() -> None:
    store = MemoryStore()
    SideBySide(store, 1).save(state(10))
    store.delete(f"{layout.checkpoint('r1', 10)}/{MANIFEST}")

    assert _restored(store)[:2] == (
        None,
        ["no checkpoint is complete (of step 10 parts are there), so nothing is kept"],
    )


@pytest.mark.parametrize("what", [".safetensors", "index", MANIFEST])
@pytest.mark.parametrize("damage", ["byte", "gone", "short"])
def test_checkpoint_damaged_is_passed_over_and_told(what: str, damage: str) -> None:
    store = MemoryStore()
    ranks = SideBySide(store, 1)
    ranks.save(state(10))
    ranks.save(state(20))
    (key,) = [key for key in _objects(store, 20, "") if what in key]
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 0x80
    if damage == "gone":
        store.delete(key)
    else:
        store.write(key, bytes(data) if damage == "byte" else bytes(data)[:-1])

    where, notes, tensors = _restored(store)

    assert where is not None and where.step == 10 and same_bits(tensors, TENSORS)
    if damage == "gone" and what == MANIFEST:
        assert notes == []
    else:
        assert len(notes) == 1 and "a later step was passed over" in notes[0] and key.rpartition("/")[0] in notes[0]


def test_checkpoint_all_damaged_is_refused_with_each_reason() -> None:
    store = MemoryStore()
    ranks = SideBySide(store, 1)
    ranks.save(state(10))
    ranks.save(state(20))
    store.write(_objects(store, 20, ".safetensors")[0], b"short")
    store.delete(_objects(store, 10, ".safetensors")[0])

    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoint\(s\) can be read") as caught:
        _restored(store)
    assert "step-00000020/part-0-of-1-" in caught.value.message
    assert "step-00000010/part-0-of-1-" in caught.value.message
    assert "--run r1 --fresh" in caught.value.hint


def test_checkpoint_of_other_settings_is_refused() -> None:
    store = MemoryStore()
    SideBySide(store, 1).save(state(10, fingerprint="other"))

    with pytest.raises(CheckpointError, match="step-00000010 belongs to a training with other settings"):
        _restored(store)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"model/bias": torch.zeros(2)}, r"holds no model/bias, and float32\[2\] is needed: it is of another model"),
        ({"model/weight": torch.zeros(2, 3)}, r"holds model/weight as float32\[2, 2\], and float32\[2, 3\] is needed"),
        ({"model/weight": torch.zeros(2, 2).half()}, r"holds model/weight as float32\[2, 2\], and float16\[2, 2\]"),
    ],
)
def test_checkpoint_of_another_model_is_refused_by_name(wanted: dict[str, torch.Tensor], words: str) -> None:
    store = MemoryStore()
    SideBySide(store, 2).save(state(10))

    with pytest.raises(CheckpointError, match=words) as caught:
        opened(store, 10).read_into(whole(wanted))
    assert "give back the model of that run" in caught.value.hint


def _forge(store: Store, step: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Another index, with all digests right, as who may write to the store can make it."""
    prefix = layout.checkpoint("r1", step)
    (key,) = [key for key in _objects(store, step, ".json") if "/index-" in key]
    index = json.loads(store.read(key))
    change(index)
    data = json.dumps(index).encode()
    store.write(key, data)
    digest = FileDigest(sha256=sha256(data), size_bytes=len(data), object=key.rpartition("/")[2])
    store.write(f"{prefix}/{MANIFEST}", Manifest(files={INDEX: digest}).to_json())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: index["state"].pop("epoch_step"), "state.epoch_step is missing or not known here"),
        (lambda index: index["state"].update(seen_tokens=3), "state.seen_tokens is missing or not known here"),
        (lambda index: index.update(format=2), "its format is 2, and 1 is known here"),
        (lambda index: index.update(shards=[]), r"index.json has another form \(1 fields\)"),
    ],
    ids=["missing", "unknown", "format", "form"],
)
def test_checkpoint_of_another_raypipe_is_refused_by_name(change: Callable[[dict[str, Any]], None], words: str) -> None:
    store = MemoryStore()
    SideBySide(store, 1).save(state(10))
    _forge(store, 10, change)

    with pytest.raises(CheckpointError, match=f"was written by another version of raypipe: {words}") as caught:
        _restored(store)
    assert "without --resume" in caught.value.hint


def test_checkpoint_of_the_release_before_is_refused_by_name() -> None:
    store = MemoryStore()
    prefix = layout.checkpoint("r1", 10)
    old = {"state.json": b"{}", "tensors.safetensors": safetensors.torch.save({"a": torch.zeros(1)})}
    files: dict[str, FileDigest] = {}
    for name, data in old.items():
        store.write(f"{prefix}/{name}", data)
        files[name] = FileDigest(sha256=sha256(data), size_bytes=len(data))
    store.write(f"{prefix}/{MANIFEST}", Manifest(files=files).to_json())

    with pytest.raises(CheckpointError, match=r"another version of raypipe: index\.json is missing"):
        _restored(store)


@pytest.mark.parametrize(
    "change",
    [
        lambda span: span.update(count=span["count"] - 1),
        lambda span: span.update(start=1),
        lambda span: span.update(offset_bytes=10**9),
        lambda span: span.update(dtype="PICKLE"),
        lambda span: span.update(shape=[10**9, 10**9]),
        lambda span: span.update(offset_bytes=-8),
    ],
    ids=["fewer", "moved", "outside", "dtype", "huge", "before"],
)
def test_checkpoint_whose_index_does_not_fit_its_parts_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    store = MemoryStore()
    SideBySide(store, 1).save(state(10))
    _forge(store, 10, lambda index: change(index["parts"][0]["spans"]["model/weight"]))

    with pytest.raises(DigestMismatch, match="is damaged: model/weight"):
        opened(store, 10)


def test_checkpoint_in_mid_epoch_at_another_number_of_ranks_goes_back_to_the_end_of_an_epoch() -> None:
    store = MemoryStore()
    ranks = SideBySide(store, 2)
    ranks.save(state(6, epoch_step=0))
    ranks.save(state(8, epoch_step=2))

    where, notes, tensors = _restored(store)

    assert where is not None and where.step == 6 and same_bits(tensors, TENSORS)
    assert len(notes) == 1 and "step 8 is in mid-epoch of 2 worker(s), and here are 1" in notes[0]


def test_checkpoint_in_mid_epoch_alone_is_refused_at_another_number_of_ranks() -> None:
    store = MemoryStore()
    SideBySide(store, 2).save(state(8, epoch_step=2))

    with pytest.raises(CheckpointError, match=r"step 8 is in mid-epoch of 2 worker\(s\), and here are 1") as caught:
        _restored(store)
    assert "the number of workers" in caught.value.hint


def test_checkpoint_cleared_leaves_nothing_of_this_run_alone() -> None:
    store = MemoryStore()
    ranks = SideBySide(store, 2)
    ranks.save(state(10))
    ranks.save(state(20))
    store.delete(f"{layout.checkpoint('r1', 20)}/{MANIFEST}")
    SideBySide(store, 1, run_id="r2").save(state(5))

    clear(store, "r1")

    assert not list(store.list(layout.checkpoints("r1")))
    assert len(list(store.list(layout.checkpoints("r2")))) == 3


class Canary:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (sys.intern, ("a canary that was unpickled",))


def test_checkpoint_of_several_ranks_is_read_without_unpickling_a_byte_of_the_store() -> None:
    store = MemoryStore()
    SideBySide(store, 3).save(state(10, epoch_step=0))
    canary = pickle.dumps(Canary())
    seen: list[str] = []
    is_on = [True]

    def note(event: str, args: Any) -> None:
        if is_on and event in ("pickle.find_class", "marshal.loads", "exec"):
            seen.append(f"{event} {str(args)[:100]}")

    sys.addaudithook(note)  # stays for the life of the process, so it is switched off
    try:
        pickle.loads(canary)
        assert seen, "the hook works"
        seen.clear()
        _, _, tensors = _restored(store)
        for key in _objects(store, 10, ""):
            before = store.read(key)
            for forged in (canary, before[:8] + canary, before + canary):
                store.write(key, forged)
                try:
                    _restored(store)
                except CheckpointError:
                    continue
            store.write(key, before)
    finally:
        is_on.clear()
    assert same_bits(tensors, TENSORS) and not seen
