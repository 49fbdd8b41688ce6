"""What a lost worker costs; JSON lines, the last one is the headline. FAULTS T12.

    .venv/bin/python tests/bench/bench_failures.py [KILLS [BETWEEN_S]]

raypipe.train.stage.train on a Ray of this machine: two workers, steps of 50 ms and little else, a checkpoint every 20
of them into a folder. Each attempt but the last trains BETWEEN_S seconds (default 60), then one of its workers gets
SIGKILL, KILLS times (default 4); the last one ends after TAIL_S more. It takes about KILLS * (BETWEEN_S + 10 s): five
minutes. As the training itself tells at its end (goodput):

- lost_s_per_failure: from the last checkpoint that was kept to the first step of the next attempt: finding the loss,
  starting the workers, reading the checkpoint, and what was trained and lost.
- repeated_s_per_failure: of it, the steps that were done again.
- stall_frac: of the time, how much steps waited for checkpoints.
- ettr_at_3h: the share of the time that counts, if a worker were lost every 3 hours, as Llama 3's were.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

from raypipe.runtime.connect import connect
from raypipe.runtime.resources import Bundle, Demand
from raypipe.storage import open_store
from raypipe.testing import faults
from tests.bench.loading import surroundings
from tests.integration import faulty

STEP_S, EVERY_STEPS = 0.05, 20
BATCH, STEPS_PER_EPOCH = 10, 200
"""So that validation and an epoch's own checkpoint, which are no part of what a failure costs, take little time."""
TAIL_S = 15.0
MTBF_S = 3 * 3600.0
BARS = {"lost_s_per_failure": 20.0, "stall_frac": 0.01}


def main(kills: int, between_s: float) -> None:
    calls = round(between_s / STEP_S)
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as name:
        folder = Path(name)
        code = faults.write_network(folder / "code", [f"{number % 2} {calls} at_once" for number in range(kills)])
        most_steps = kills * calls + round(TAIL_S / STEP_S)
        spec = faulty.pipeline(
            code,
            step_s=STEP_S,
            epochs=-(-most_steps // STEPS_PER_EPOCH),
            max_steps=most_steps,
            global_batch_size=BATCH,
            max_failures=kills,
            checkpoint={"every_steps": EVERY_STEPS},
        )
        demand = Demand(groups=((Bundle("train", 2, spec.train.resources),),))
        with connect(demand, code_dir=code):
            store = open_store(str(folder / "store"))
            result, told = faulty.run(spec, store, code, "bench", num_train=BATCH * STEPS_PER_EPOCH)
    goodput = result.goodput
    assert goodput is not None and result.attempts == 1 + kills, "the faults must have happened"
    starts = faulty.starts(told)
    repeated = [first + calls - 1 - again for first, again in pairwise(starts)]  # a worker dies in its call `calls`
    found: dict[str, Any] = {
        "lost_s_per_failure": round(goodput.failures_s / kills, 2),
        "repeated_s_per_failure": round(statistics.mean(repeated) * STEP_S, 2),
        "stall_frac": round(goodput.checkpoints_s / goodput.whole_s, 5),
    }
    print(json.dumps({"goodput": goodput.model_dump(mode="json"), "steps_repeated": repeated}), flush=True)
    headline = {
        "bench": "failures",
        **surroundings(["torch", "ray"]),
        "kills": kills,
        "between_s": between_s,
        **found,
        "ettr_at_3h": round(1 - found["lost_s_per_failure"] / MTBF_S - found["stall_frac"], 5),
        "bars": BARS,
        "misses": [name for name, bar in BARS.items() if found[name] > bar],
    }
    print(json.dumps(headline), flush=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    main(int(words[0]) if words else 4, float(words[1]) if len(words) > 1 else 60.0)
