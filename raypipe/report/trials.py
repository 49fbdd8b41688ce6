"""The trials of a search: their table, and what each parameter did."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from raypipe.records import Trial, TuneResult
from raypipe.report.cells import Table, shown
from raypipe.report.charts import Charts

MAX_TRIALS = 300
MAX_PARAMETERS = 12


def _ordered(tuned: TuneResult) -> list[Trial]:
    def place(trial: Trial) -> float:
        metric = _metric(trial)
        if metric is None:
            return math.inf
        return -metric if tuned.mode == "max" else metric

    return sorted(tuned.trials, key=place)


def _metric(trial: Trial) -> float | None:
    return trial.metric if trial.metric is not None and math.isfinite(trial.metric) else None


def _parameters(tuned: TuneResult) -> list[str]:
    return list(dict.fromkeys(name for trial in tuned.trials for name in trial.values))


def trial_table(tuned: TuneResult) -> Table:
    """Every trial with its values, the best first."""
    names = _parameters(tuned)
    rows = [
        (each.trial_id, *(each.values.get(name) for name in names), each.metric, each.status, each.epochs, each.error)
        for each in _ordered(tuned)[:MAX_TRIALS]
    ]
    more = f", the best {MAX_TRIALS} of {len(tuned.trials)}" if len(tuned.trials) > MAX_TRIALS else ""
    headers = ("trial", *names, tuned.metric, "status", "epochs", "error")
    return Table(f"Trials, the best first{more}", headers, rows)


def trial_charts(tuned: TuneResult, charts: Charts) -> list[Markup]:
    """Parallel coordinates of all trials that have a metric, then each parameter against it."""
    scored = [each for each in _ordered(tuned) if _metric(each) is not None][:MAX_TRIALS]
    if not scored:
        return []
    names = _parameters(tuned)[:MAX_PARAMETERS]
    metric = [float(each.metric) for each in scored if each.metric is not None]
    best = next((i for i, each in enumerate(scored) if each.trial_id == tuned.best_trial), None)
    values = {name: [_plain(each.values.get(name)) for each in scored] for name in names}
    desc = f"{len(scored)} trials; the best is {tuned.best_trial}"
    pictures = [charts.parallel(f"Trials: parameters and {tuned.metric}", desc, {**values, tuned.metric: metric}, best)]
    return pictures + [charts.dots(f"{name} and {tuned.metric}", values[name], metric, tuned.metric) for name in names]


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else shown(value)
