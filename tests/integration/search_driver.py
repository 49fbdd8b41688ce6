"""The driver of a search as a process of its own, which a test may kill.

python -m tests.integration.search_driver RAY_ADDRESS STORE RUN_ID SPEC_FILE DATASET_FILE
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from raypipe.records import DatasetVersion
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store, layout, open_store

DEADLINE_S = 240.0
"""Longest wait for a driver to come so far."""


def num_finished(store: Store, run_id: str) -> int:
    """Trials whose record is there."""
    return sum(layout.is_trial_record(info.key) for info in store.list(layout.trials(run_id)))


class Driver:
    """Starts the search of a run; as often as it is killed."""

    def __init__(
        self, address: str, store: Store, run_id: str, spec: PipelineSpec, dataset: DatasetVersion, folder: Path
    ):
        self._store, self._run_id = store, run_id
        files = folder / f"{run_id}-spec.json", folder / f"{run_id}-dataset.json"
        for file, document in zip(files, (spec, dataset), strict=True):
            file.write_text(document.model_dump_json())
        self._command = [sys.executable, "-m", __spec__.name, address, store.uri, run_id, *map(str, files)]

    def run_until(self, reached: Callable[[int], bool], then_wait_s: float = 0.0) -> int:
        """Start it, and SIGKILL it when so many trials have finished.

        Args:
            reached: of the number of finished trials.
            then_wait_s: so much longer it lives.
        Returns:
            Finished trials after it died.
        """
        process = subprocess.Popen(self._command, cwd=Path(__file__).parents[2])
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not reached(num_finished(self._store, self._run_id)):
                assert process.poll() is None, "the search ended before it was killed"
                assert time.monotonic() < deadline, "the search does not come so far"
                time.sleep(0.02)
            time.sleep(then_wait_s)
            assert process.poll() is None, "the search ended before it was killed"
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL
        return num_finished(self._store, self._run_id)


def main(address: str, store_uri: str, run_id: str, spec_file: str, dataset_file: str) -> None:
    import ray

    from raypipe.testing.fakes import run_context
    from raypipe.tune.stage import tune

    ray.init(address=address, log_to_driver=False)
    spec = PipelineSpec.model_validate_json(Path(spec_file).read_text())
    dataset = DatasetVersion.model_validate_json(Path(dataset_file).read_text())
    tune(spec, dataset, run_context(open_store(store_uri), run_id=run_id))


if __name__ == "__main__":
    main(*sys.argv[1:])
