"""What a file may say of a search, and what it is told where it may not."""

from __future__ import annotations

import pytest

from raypipe.errors import SpecError
from raypipe.spec.load import parse_pipeline

FILE = """\
name: search
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: mlp}
train: {epochs: 4, optimizer: {kind: sgd, lr: 0.1}}
tune:
"""
LR = "train.optimizer.lr: {log_uniform: [0.001, 1.0]}"
MOMENTUM = "train.optimizer.momentum: {uniform: [0.0, 0.9]}"
KINDS = "train.optimizer: {choice: [{kind: sgd}, {kind: adam}]}"


@pytest.mark.parametrize(
    "tune",
    [
        "{space: {train.global_batch_size: {int_uniform: [32, 200], step: 32}}}",
        "{space: {model.dropout_frac: {uniform: [0.0, 0.5], step: 0.1}}, search: {kind: grid}}",
        "{space: {train.global_batch_size: {int_uniform: [1, 1000], log: true}}, search: {kind: tpe}}",
        f"{{space: {{{LR}, {MOMENTUM}}}, search: {{kind: cma_es}}}}",
        f"{{space: {{{LR}}}, search: {{kind: pbt, every_epochs: 2}}, num_trials: 4}}",
        f"{{space: {{{LR}}}, max_minutes: 5, max_trial_minutes: 0.5, max_failed_trials: 3}}",
        f"{{space: {{{LR}}}, scheduler: {{kind: median}}}}",
        f"{{space: {{{LR}}}, scheduler: {{kind: hyperband}}}}",
        f"{{space: {{{KINDS}, train.optimizer.momentum: {{uniform: [0, 1], step: 0.3, "
        "when: {train.optimizer: {kind: sgd}}}}}",
        "{space: {train.optimizer: {choice: [{kind: sgd}, {kind: adam}, {kind: adamw}]}, "
        "train.optimizer.eps: {choice: [1e-8, 1e-6], when: {train.optimizer: [{kind: adam}, {kind: adamw}]}}}}",
        "{space: {model.hidden: {choice: [[8], [8, 4]]}, "
        "model.dropout_frac: {choice: [0.1, 0.2], when: {model.hidden: [8, 4]}}}}",
    ],
)
def test_file_with_a_search_of_every_kind_is_taken(tune: str) -> None:
    assert parse_pipeline(f"{FILE}  {tune}\n").tune is not None


@pytest.mark.parametrize(
    ("tune", "told"),
    [
        ("{space: {train.epochs: {int_uniform: [1, 3], step: 5}}}", "step 5 is wider than the range from 1 to 3"),
        ("{space: {train.epochs: {int_uniform: [1, 3], step: 0}}}", "found 0"),
        ("{space: {train.epochs: {int_uniform: [0, 8], log: true}}}", "log needs a lower bound of 1 or more, found 0"),
        (
            "{space: {train.epochs: {int_uniform: [1, 8], log: true, step: 2}}}",
            "log and step exclude each other; list the values",
        ),
        ("{space: {model.dropout_frac: {uniform: [0, 0.5], step: 0.00001}}}", "makes more than 10,000 values"),
        ("{space: {train.epochs: {uniform: [1, 2], choice: [1]}}}", "must be one of {uniform: [a, b]}"),
        ("{space: {train.epochs: {int_uniform: [1, 8], stepp: 2}}}", "stepp: unknown field, did you mean 'step'?"),
        (
            f"{{space: {{{LR}, train.epochs: {{choice: [1, 2], when: {{train.optimizer.lr: 0.5}}}}}}}}",
            "space.train.epochs.when: train.optimizer.lr must be another field of the space, one with a choice",
        ),
        (
            "{space: {train.epochs: {choice: [1, 2], when: {seed: 5}}, seed: {choice: [1, 2]}}}",
            "space.train.epochs.when: 5 is no option of seed; its options are [1, 2]",
        ),
        (
            "{space: {train.epochs: {choice: [1], when: {seed: [1, true]}}, seed: {choice: [1, 2]}}}",
            "space.train.epochs.when: True is no option of seed",
        ),
        (
            "{space: {train.epochs: {choice: [1], when: {seed: 1}}, seed: {choice: [1], when: {train.epochs: 1}}}}",
            "space: the fields ['seed', 'train.epochs'] exist only where one another does",
        ),
        (
            # sgd has no such field; adam would, but there it is not drawn.
            f"{{space: {{{KINDS}, train.optimizer.eps: "
            "{choice: [1e-8], when: {train.optimizer: {kind: sgd}}}}}",
            "tune.space.train.optimizer.eps: ",
        ),
        ("{space: {train.optimizer.kind: {choice: [sgd, adam]}}}", "try: search all of train.optimizer: {choice: "),
        (f"{{space: {{{LR}}}, search: {{kind: grid}}}}", "grid lists all values, and train.optimizer.lr has too many"),
        (f"{{space: {{{LR}}}, search: {{kind: cma_es}}}}", "cma_es needs two or more fields that are numbers, found 1"),
        (
            f"{{space: {{seed: {{choice: [1, 2]}}, {LR}, train.epochs: {{int_uniform: [1, 2], when: {{seed: 1}}}}}}, "
            "search: {kind: cma_es}}",
            "cma_es moves all numbers together, and train.epochs does not always exist",
        ),
        (
            "{space: {model.dropout_frac: {uniform: [0, 0.5]}}, search: {kind: pbt}}",
            "pbt changes values in mid training, which model.dropout_frac cannot",
        ),
        (
            f"{{space: {{{LR}}}, search: {{kind: pbt}}, scheduler: {{kind: asha}}}}",
            "pbt decides itself which training gives up; leave scheduler out",
        ),
        (f"{{space: {{{LR}}}, search: {{kind: pbt}}, num_trials: 1}}", "set num_trials to 2 or more"),
        (f"{{space: {{{LR}}}, search: {{kind: pbt, every_epochs: 4}}}}", "must be below train.epochs=4"),
        (f"{{space: {{{LR}}}, search: {{kind: optuna}}}}", "kind is 'optuna'"),
    ],
)
def test_search_that_cannot_be_is_refused_before_anything_starts(tune: str, told: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_pipeline(f"{FILE}  {tune}\n", name="p.yaml")
    assert told in str(refused.value) and str(refused.value).startswith("p.yaml:")


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (
            "{epochs: 4, schedule: {kind: cosine}}",
            "pbt finds a schedule itself, and a cosine one must know the last step",
        ),
        ("{epochs: 4, early_stopping: {}}", "pbt decides which training gives up; leave train.early_stopping out"),
    ],
)
def test_population_refuses_what_must_know_the_last_epoch(train: str, told: str) -> None:
    file = FILE.replace("{epochs: 4, optimizer: {kind: sgd, lr: 0.1}}", train)
    with pytest.raises(SpecError) as refused:
        parse_pipeline(f"{file}  {{space: {{{LR}}}, search: {{kind: pbt}}}}\n")
    assert told in str(refused.value)
