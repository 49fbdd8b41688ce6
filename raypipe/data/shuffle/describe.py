"""What the rows of a version hold, column by column, and what can be judged of that alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from raypipe.data.checks import verdicts
from raypipe.data.checks.dates import refuse_unclear_dates
from raypipe.data.checks.warned import MAX_WARNINGS
from raypipe.data.checks.warnings import warnings_of
from raypipe.data.profile import parts, profile
from raypipe.data.shuffle import gather
from raypipe.data.shuffle.gather import ALL_SPLITS
from raypipe.data.shuffle.written import WrittenShards
from raypipe.data.tasks import collect
from raypipe.errors import DataError, ObjectMissing
from raypipe.records import DataProfile, DataWarning, ExpectationResult
from raypipe.runtime.context import RunContext
from raypipe.spec.data import DataSpec
from raypipe.spec.expectations import DriftExpectation
from raypipe.storage import layout
from raypipe.storage.documents import read_document, read_mapping


@dataclass(frozen=True)
class Description:
    """What a version holds.

    Attributes:
        warnings: what of it is worth acting on.
    """

    profile: DataProfile
    warnings: tuple[DataWarning, ...]


def describe(
    written: WrittenShards,
    results: Sequence[ExpectationResult],
    spec: DataSpec,
    features: tuple[str, ...],
    version: str,
    ctx: RunContext,
) -> Description:
    """What the version holds, and every expectation judged, those on drift too.

    Args:
    Raises:
        DataError: an expectation with `on_fail: fail` on drift does not hold, or dates may be seconds.
    """
    (by_split,) = collect([gather.merge_task.remote(*written.profiles)], "describing columns")
    whole = parts.merge(list(by_split.values()))
    refuse_unclear_dates(whole, spec)
    described = DataProfile(name=ctx.name, version=version, num_rows=whole.num_rows, columns=profile.finish(whole))
    splits = {} if ALL_SPLITS in by_split else {name: profile.finish(part) for name, part in by_split.items()}
    warned = list(warnings_of(described, whole, splits, written.labels, spec, features))
    drifted = verdicts.judge_drift(spec.expectations, described, partial(_baseline, ctx=ctx))
    verdicts.refuse_broken(drifted)
    results = sorted((*results, *drifted), key=lambda result: result.index)
    for line in verdicts.warnings(results):
        ctx.progress.say("data", line)
    return Description(described.model_copy(update={"expectations": tuple(results)}), tuple(warned[:MAX_WARNINGS]))


def _baseline(expectation: DriftExpectation, ctx: RunContext) -> DataProfile | None:
    """The profile an expectation compares with; None where this data set has none yet.

    Raises:
        DataError: the baseline it names is not there.
    """
    name, _, version = (expectation.baseline or ctx.name).partition("@")
    try:
        version = version or str(read_mapping(ctx.store, layout.latest_dataset(name))["version"])
        return read_document(ctx.store, layout.profile(name, version), DataProfile)
    except ObjectMissing:
        if expectation.baseline in (None, ctx.name):
            return None
        raise DataError(
            f"data.expectations (drift): the baseline '{expectation.baseline}' is not in the store {ctx.store.uri}",
            "name a data set that is there, as NAME or NAME@VERSION, or leave baseline out",
        ) from None
