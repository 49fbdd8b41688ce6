"""The loop on 2, 3 and 4 ranks of torch.distributed (gloo), compared with one rank in this process."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from raypipe.data.shards import load_rows
from raypipe.model.artifact import WEIGHTS, read_artifact
from raypipe.records import TrainResult
from raypipe.storage.local import LocalFolder
from raypipe.storage.publish import read_published
from raypipe.train.rows import World
from tests.integration import ranks
from tests.integration.rank_processes import run_to_its_end
from tests.unit.train.interrupted import answer
from tests.unit.train.orders import (
    ELASTIC_ORDERS,
    NUM_PAIR_STEPS,
    NUM_SAME_STEPS,
    NUM_TRAIN,
    ORDERS,
    SAME,
    SAME_ORDERS,
)

RANKS_TIMEOUT_S = 360.0
"""A busy machine imports torch and trains all orders within it."""

pytestmark = pytest.mark.timeout(RANKS_TIMEOUT_S + 60)


class Outcomes:
    """What every rank answered, by order and world size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalFolder(str(folder / "store"))

    def of(self, name: str, size: int) -> list[dict[str, Any]]:
        """One answer a rank."""
        return [json.loads((self.folder / f"{name}-{size}-{rank}.json").read_text()) for rank in range(size)]

    def weights(self, name: str, size: int) -> dict[str, torch.Tensor]:
        """Of the artifact that was packaged, digests checked."""
        artifact = self.of(name, size)[0]["artifact"]
        files = read_published(self.store, artifact["key"], digest=artifact["digest"])
        return safetensors.torch.load(files[WEIGHTS])


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All orders at one rank, in this process, then at 4, 3 and 2 ranks, each a process of its own."""
    folder = tmp_path_factory.mktemp("ranks")
    for size in (1, *ranks.SIZES):
        made = {**(ORDERS if size != 4 else {}), **(SAME_ORDERS if size != 3 else {}), **ELASTIC_ORDERS}
        orders = {name: make(folder / "store", f"{name}-{size}", size) for name, make in made.items()}
        (folder / f"orders-{size}.pickle").write_bytes(pickle.dumps(orders))
        if size == 1:
            for name, order in orders.items():
                (folder / f"{name}-1-0.json").write_text(json.dumps(answer(order, World())))
    run_to_its_end(ranks, folder, RANKS_TIMEOUT_S)
    return Outcomes(folder)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["full_batch", "weighted"])
def test_run_same_set_of_rows_a_step_gives_the_weights_of_one_rank(outcomes: Outcomes, size: int, name: str) -> None:
    one, many = outcomes.weights(name, 1), outcomes.weights(name, size)

    # Uneven shares, clipping and label smoothing included; the sums differ in order, so in the last bits.
    for name, weight in one.items():
        torch.testing.assert_close(many[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["weighted", "oversampled"])
def test_run_of_rows_that_count_differently_has_the_losses_of_one_rank(
    outcomes: Outcomes, size: int, name: str
) -> None:
    one, many = (outcomes.of(name, n)[0]["history"] for n in (1, size))
    assert many[0]["step"] == 1, "a step takes all rows"
    for alone, shared in zip(one, many, strict=True):
        assert shared["metrics"] == pytest.approx(alone["metrics"], rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", SAME)
def test_run_what_only_orders_sums_leaves_the_losses_of_50_steps(outcomes: Outcomes, size: int, name: str) -> None:
    one, other = (
        [entry["metrics"] for entry in outcomes.of(*which)[0]["history"]] for which in (("same", 1), (name, size))
    )
    assert len(one) == len(other) == NUM_SAME_STEPS
    for alone, found in zip(one, other, strict=True):
        for metric in ("train_loss", "val_loss"):
            assert found[metric] == pytest.approx(alone[metric], rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", ["pairs", "pairs_accumulated"])
def test_run_counts_every_token_of_targets_of_unequal_length_alike(outcomes: Outcomes, size: int, name: str) -> None:
    one, other = (
        [entry["metrics"] for entry in outcomes.of(*which)[0]["history"]] for which in (("pairs", 1), (name, size))
    )
    assert len(one) == len(other) == NUM_PAIR_STEPS and one[-1]["val_token_accuracy"] > one[0]["val_token_accuracy"]
    for alone, found in zip(one, other, strict=True):
        assert found == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["synced", "synced_sharded", "synced_recomputed"])
def test_run_batch_norm_over_all_ranks_learns_as_one_rank_does(outcomes: Outcomes, size: int, name: str) -> None:
    one, other = (
        [entry["metrics"] for entry in outcomes.of(*which)[0]["history"]] for which in (("synced", 1), (name, size))
    )
    for alone, found in zip(one, other, strict=True):
        for metric in ("train_loss", "val_loss"):
            assert found[metric] == pytest.approx(alone[metric], rel=1e-5)


@pytest.mark.parametrize("name", ["unused", "sharded_unused"])
@pytest.mark.parametrize("size", [2, 3])
def test_run_with_unused_and_frozen_parameters_trains_the_others_alike_on_any_number_of_ranks(
    outcomes: Outcomes, size: int, name: str
) -> None:
    one, many = outcomes.weights("unused", 1), outcomes.weights(name, size)
    for name, weight in one.items():
        torch.testing.assert_close(many[name], weight, rtol=1e-5, atol=1e-6)
    for name in ("aux.weight", "aux.bias", "first.bias"):  # not even decayed
        assert bool((many[name] == 0.5).all())


@pytest.mark.parametrize("size", [2, 3])
def test_run_each_row_counts_exactly_once_an_epoch(outcomes: Outcomes, size: int) -> None:
    one, many = outcomes.of("frozen", 1)[0], outcomes.of("frozen", size)[0]

    assert many["num_steps"] == 2 * 3, f"{NUM_TRAIN} rows are two steps of 24 and one of 19"
    for alone, shared in zip(one["history"], many["history"], strict=True):
        assert shared["metrics"]["train_loss"] == pytest.approx(alone["metrics"]["train_loss"], rel=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_validate_on_many_ranks_gives_the_metrics_of_one(outcomes: Outcomes, size: int) -> None:
    one, many = outcomes.of("frozen", 1)[0], outcomes.of("frozen", size)

    expected = {k: v for k, v in one["history"][-1]["metrics"].items() if k.startswith("val_")}
    for rank in many:
        found = rank["history"][-1]["metrics"]
        assert found == many[0]["history"][-1]["metrics"], "to the bit on every rank"
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
        assert found["val_accuracy"] == expected["val_accuracy"]


@pytest.mark.parametrize("name", ["batch_norm", "sharded_batch_norm"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_batch_norm_with_a_row_left_over_trains_and_tells_the_loss_of_the_model_it_saves(
    outcomes: Outcomes, size: int, name: str
) -> None:
    answers = outcomes.of(name, size)
    assert "error" not in answers[0], answers[0]
    order = ORDERS[name](outcomes.folder / "store", f"{name}-{size}", size)
    trained = TrainResult.model_validate(answers[0])
    _, module = read_artifact(outcomes.store, trained.artifact, code_dir=order.code_dir)
    rows = load_rows(outcomes.store, order.dataset, "val")

    with torch.inference_mode():
        output = module(torch.from_numpy(rows.columns["x"]))
    loss = float(torch.nn.functional.cross_entropy(output.double(), torch.from_numpy(rows.target)))

    assert trained.num_steps == 3, "the 67th row is taken with the others"
    for found in answers:
        assert found["history"][-1]["metrics"]["val_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "name", ["resumed", "streamed_resumed", "stale_resumed", "sharded_resumed", "sharded_by_itself_resumed"]
)
@pytest.mark.parametrize("size", [2, 3])
def test_run_stopped_within_an_epoch_ends_with_the_same_bits(outcomes: Outcomes, size: int, name: str) -> None:
    without_stop = "sharded_whole" if name.startswith("sharded") else "whole"
    whole, resumed = outcomes.of(without_stop, size)[0], outcomes.of(name, size)[0]

    assert resumed["started_at"] == [0, 8], "it must have lost a step and gone on from the checkpoint before"
    assert resumed["history"] == whole["history"]
    assert resumed["artifact"]["digest"] == whole["artifact"]["digest"]


@pytest.mark.parametrize("name", ["fewer_ranks", "fewer_sharded_ranks"])
def test_run_another_number_of_ranks_goes_on_where_an_epoch_ended(outcomes: Outcomes, name: str) -> None:
    one, three, two = (outcomes.of(name, size)[0] for size in (1, 3, 2))

    assert len(three["history"]) == 1 and two["history"][0] == three["history"][0]
    assert two["num_workers"] == 2 and two["num_steps"] == one["num_steps"] == 3
    for alone, shared in zip(one["history"], two["history"], strict=True):
        assert shared["metrics"]["train_loss"] == pytest.approx(alone["metrics"]["train_loss"], rel=1e-5)
    weights = outcomes.weights(name, 1)
    for tensor, value in outcomes.weights(name, 2).items():
        torch.testing.assert_close(value, weights[tensor], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ELASTIC_ORDERS)
def test_run_elastic_ranks_go_on_within_an_epoch_as_if_their_number_had_never_changed(
    outcomes: Outcomes, name: str
) -> None:
    one, four, three, two = (outcomes.of(name, size)[0] for size in (1, 4, 3, 2))

    assert (four["started_at"], three["started_at"], two["started_at"]) == ([0], [2], [4]), "one interval is lost"
    assert two["num_workers"] == 2 and two["num_steps"] == one["num_steps"] == 9
    for alone, shared in zip(one["history"], two["history"], strict=True):
        for metric in ("train_loss", "val_loss"):
            assert shared["metrics"][metric] == pytest.approx(alone["metrics"][metric], rel=1e-5)
    weights = outcomes.weights(name, 1)
    for tensor, value in outcomes.weights(name, 2).items():
        torch.testing.assert_close(value, weights[tensor], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_run_one_rank_that_can_read_no_checkpoint_fails_all(outcomes: Outcomes, size: int) -> None:
    answers = outcomes.of("unreadable_resumed", size)

    assert {answer["error"] for answer in answers} == {"CheckpointError"}
    assert len({answer["message"] for answer in answers}) == 1
    assert "none of the 2 checkpoint(s) can be read" in answers[0]["message"]
    assert "worker 1: " in answers[0]["message"] and "step-00000008/part-0-of-" in answers[0]["message"]
    assert answers[0]["started_at"] == [0], "no rank began to train"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_run_nan_on_one_rank_stops_all_at_the_same_step_and_publishes_nothing(outcomes: Outcomes, size: int) -> None:
    answers = outcomes.of("nan", size)

    assert {answer["error"] for answer in answers} == {"NonFiniteLossError"}
    assert len({answer["message"] for answer in answers}) == 1
    assert answers[0]["message"].startswith("training step ")
    assert not list(outcomes.store.list(f"runs/nan-{size}/train/artifact"))


@pytest.mark.parametrize("size", [2, 3])
def test_run_one_rank_that_cannot_be_set_up_fails_all_with_its_error(outcomes: Outcomes, size: int) -> None:
    answers = outcomes.of("damaged", size)

    assert {answer["error"] for answer in answers} == {"DigestMismatch"}
    assert len({answer["message"] for answer in answers}) == 1
    assert "train/00006.arrow is damaged" in answers[0]["message"]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("damaged_while_training", "train/00006"),
        ("sharded_damaged_while_training", "train/00006"),
        ("accumulated_damaged_while_training", "train/00006"),
        ("scaled_damaged_while_training", "train/00006"),
        ("damaged_under_batch_norm", "train/00005"),
        ("damaged_val", "val/00001"),
        ("sharded_damaged_val", "val/00001"),
    ],
)
def test_run_one_rank_that_cannot_read_on_stops_all_with_its_error(
    outcomes: Outcomes, size: int, name: str, key: str
) -> None:
    answers = outcomes.of(name, size)

    assert {answer["error"] for answer in answers} == {"DigestMismatch"}
    assert len({answer["message"] for answer in answers}) == 1
    assert f"{key}.arrow" in answers[0]["message"]
    assert not list(outcomes.store.list(f"runs/{name}-{size}/train/artifact"))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_run_checkpoint_that_cannot_be_written_fails_all_with_its_error(outcomes: Outcomes, size: int) -> None:
    answers = outcomes.of("unwritable", size)

    assert {answer["error"] for answer in answers} == {"StoreAccessError"}
    assert len({answer["message"] for answer in answers}) == 1


def test_rank_without_ray_train_never_imports_ray(outcomes: Outcomes) -> None:
    imported = set(json.loads((outcomes.folder / "imported.json").read_text()))
    assert "raypipe.train.loop" in imported and "ray" not in imported


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_with_batches_of_unlike_size_settle_on_one_number_of_rows_a_pass(outcomes: Outcomes, size: int) -> None:
    answers = outcomes.of("rows_that_fit", size)

    assert answers == [{"rows": answers[0]["rows"], "tried": answers[0]["tried"]}] * size
    assert answers[0]["tried"][0] == 8 * size and answers[0]["rows"] <= 5


def test_agreed_where_the_others_are_gone_a_rank_fails_with_what_it_knows(outcomes: Outcomes) -> None:
    found = json.loads((outcomes.folder / "lost-peer.json").read_text())

    assert found.pop("nothing")[1], "what torch raises is told from errors of one's own"
    assert found == {
        "own": ["DataError", False],
        "own_and_met": ["DataError", False],
        "met": ["NonFiniteLossError", False],
    }
