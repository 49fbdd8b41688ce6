"""Perplexity of a language model here and of one trained by a loop as nanoGPT's, written by hand, at equal steps.

    RAYPIPE_SHAKESPEARE=FOLDER .venv/bin/python tests/bench/bench_perplexity.py [--steps 600] [--seeds 3]

FOLDER holds the Shakespeare text of char-rnn as input.txt. Both read the same windows of 64 characters (batches of 16)
and train a GPT of 0.35 million parameters with AdamW, warm-up, a cosine and clipped gradients, in one process. The one
by hand shares no code with raypipe: its network (fused QKV, tied embedding, learned positions) and its first weights
are nanoGPT's, and it draws its batches by itself. So both differ in every random number, and each is trained from
several seeds; figures are means over them. JSON lines; the last is the headline.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

from tests.bench.loading import surroundings

CONTEXT, BATCH, DIM, LAYERS, HEADS = 64, 16, 96, 3, 4
LR, WARMUP, DECAY, BETAS, CLIP = 0.004, 20, 0.1, (0.9, 0.99), 1.0
TEST_WINDOWS = 800
MAX_RATIO = 1.02
"""Perplexity here, in those by hand."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.c_attn, self.attn_proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.c_fc, self.mlp_proj = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (part.view(B, T, HEADS, C // HEADS).transpose(1, 2) for part in self.c_attn(self.ln_1(x)).split(C, 2))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_proj(y.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp_proj(functional.gelu(self.c_fc(self.ln_2(x))))


class ByHand(nn.Module):
    """nanoGPT's network."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, DIM), nn.Embedding(CONTEXT, DIM)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(DIM)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                std = 0.02 / math.sqrt(2 * LAYERS) if name.endswith("proj.weight") else 0.02
                nn.init.normal_(parameter, std=std)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.ln_f(x), self.wte.weight)


def lr_at(step: int, steps: int) -> float:
    """Of a step, from 0: up linearly, then half a cosine down to 0."""
    if step < WARMUP:
        return LR * (step + 1) / WARMUP
    return 0.5 * LR * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


def trained_by_hand(train: Tensor, test: Tensor, vocabulary: int, steps: int, seed: int) -> float:
    """Test perplexity after so many steps."""
    torch.manual_seed(seed)
    network = ByHand(vocabulary)
    decayed = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=True)
    order = torch.randperm(len(train))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, steps)
        rows = train[order[step * BATCH : (step + 1) * BATCH]]
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
    network.eval()
    with torch.no_grad():
        losses = [
            functional.cross_entropy(network(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")
            for rows in test.split(100)
        ]
    return math.exp(float(torch.stack(losses).sum()) / test[:, 1:].numel())


def trained_here(store: Any, dataset: Any, seed: int) -> tuple[float, int]:
    """Perplexity of the windows that nothing is learned from after an epoch, and its steps."""
    from raypipe.spec.pipeline import PipelineSpec
    from raypipe.train.loop import run
    from raypipe.train.order import TrainOrder
    from raypipe.train.rows import World

    spec = PipelineSpec.model_validate(
        {
            "name": "text",
            "seed": seed,
            "data": {
                "task": "language_model",
                "source": {"format": "text_windows", "path": "input.txt", "context_length": CONTEXT},
            },
            "model": {"kind": "gpt", "dim": DIM, "num_layers": LAYERS, "num_heads": HEADS},
            "train": {
                "epochs": 1,
                "global_batch_size": BATCH,
                "optimizer": {"kind": "adamw", "lr": LR, "weight_decay": DECAY, "betas": list(BETAS)},
                "schedule": {"kind": "cosine", "warmup_steps": WARMUP},
                "clip_grad_norm": CLIP,
            },
        }
    )
    run_id = f"seed{seed}"
    result = run(TrainOrder(spec, dataset, store.uri, run_id, f"runs/{run_id}/train/artifact"), World(), lambda _: None)
    return result.metrics["val_perplexity"], result.num_steps


def main(steps: int, seeds: int) -> None:
    from raypipe.data.shards import load_rows
    from raypipe.data.spelling import Spelling, num_ids
    from raypipe.storage import open_store
    from raypipe.testing.fakes import tiny_text

    text = (Path(os.environ["RAYPIPE_SHAKESPEARE"]) / "input.txt").read_text()
    num_windows = steps * BATCH + TEST_WINDOWS
    text = text[: num_windows * CONTEXT + 1]
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        store = open_store(folder)
        dataset = tiny_text(store, text, context_length=CONTEXT, num_val=TEST_WINDOWS, num_test=0)
        language = dataset.signature.language
        assert language is not None and dataset.splits["train"].num_rows == steps * BATCH
        spelling = Spelling(language)
        train, test = (
            torch.tensor([spelling.ids(window) for window in load_rows(store, dataset, split).columns["text"]])
            for split in ("train", "val")
        )
        found: dict[str, list[float]] = {"here": [], "by_hand": []}
        for seed in range(seeds):
            start = time.perf_counter()
            perplexity, done = trained_here(store, dataset, seed)
            assert done == steps
            middle = time.perf_counter()
            found["here"].append(perplexity)
            found["by_hand"].append(trained_by_hand(train, test, num_ids(language), steps, seed))
            took = {"here_s": round(middle - start, 1), "by_hand_s": round(time.perf_counter() - middle, 1)}
            print(json.dumps({"seed": seed, **{n: round(v[-1], 4) for n, v in found.items()}, **took}), flush=True)
    here, by_hand = (statistics.mean(found[name]) for name in ("here", "by_hand"))
    headline = {
        "bench": "perplexity",
        **surroundings(["torch"]),
        "steps": steps,
        "seeds": seeds,
        "perplexity": round(here, 4),
        "by_hand": round(by_hand, 4),
        "ratio": round(here / by_hand, 4),
        "bar": MAX_RATIO,
        "holds": here / by_hand <= MAX_RATIO,
    }
    print(json.dumps(headline), flush=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--seeds", type=int, default=3)
    chosen = options.parse_args()
    main(chosen.steps, chosen.seeds)
