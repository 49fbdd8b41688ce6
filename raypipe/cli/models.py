"""Commands of the registry: models, versions, aliases, show, diff, lineage, promote, rollback, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from raypipe.cli.options import AsJson, Reference, StoreUri
from raypipe.cli.output import number, reported, show, show_json, show_table
from raypipe.records import ModelVersion
from raypipe.spec.metrics import main_metrics

Model = Annotated[str, typer.Argument(help="Registered model, e.g. digits.", show_default=False)]
Alias = Annotated[str, typer.Option(help="Movable name.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (models, versions, aliases, show_version, diff, lineage, promote, rollback, export):
        app.command("show" if command is show_version else command.__name__)(command)


@reported
def models(store: StoreUri = None, as_json: AsJson = False) -> None:
    """List registered models."""
    from raypipe.registry.aliases import Aliases
    from raypipe.registry.versions import list_models, version_numbers
    from raypipe.storage import open_store

    opened = open_store(store)
    rows: list[dict[str, Any]] = []
    for name in list_models(opened):
        numbers = version_numbers(opened, name)
        listed = Aliases(opened, name).listed()
        aliases = {each.name: each.record.version for each in listed if each.record is not None}
        broken = {name: "its version is gone" for name, version in aliases.items() if version not in numbers}
        broken |= {each.name: each.problem for each in listed if each.problem}
        rows.append({"model": name, "versions": numbers, "aliases": aliases, "broken_aliases": broken})
    if as_json:
        show_json(rows)
        return
    show_table(
        ("model", "versions", "aliases"),
        [(row["model"], len(row["versions"]), _aliases_text(row["aliases"], row["broken_aliases"])) for row in rows],
    )


@reported
def versions(model: Model, store: StoreUri = None, as_json: AsJson = False) -> None:
    """List the versions of a model, with their metrics and aliases; damaged ones with the reason."""
    from raypipe.registry.aliases import Aliases
    from raypipe.registry.versions import list_versions, resolve
    from raypipe.storage import open_store

    opened = open_store(store)
    listed = list_versions(opened, model)
    if not listed:
        resolve(opened, f"{model}@1")  # says what there is instead
    aliases = [each for each in Aliases(opened, model).listed() if each.record is not None]
    rows: list[dict[str, Any]] = []
    for each in listed:
        here = sorted(alias.name for alias in aliases if alias.record and alias.record.version == each.name)
        row: dict[str, Any] = {"version": each.name, "aliases": here}
        if each.record is None:
            rows.append(row | {"damaged": each.problem})
        else:
            version = each.record
            rows.append(row | {"created_at": version.created_at, "run": version.run_id, "metrics": version.metrics})
    if as_json:
        show_json(rows)
        return
    show_table(("version", "aliases", "created", "run", "metrics"), [_version_cells(row) for row in rows])


def _version_cells(row: dict[str, Any]) -> tuple[Any, ...]:
    if "damaged" in row:
        return row["version"], " ".join(row["aliases"]), "damaged", "", row["damaged"]
    created, metrics = row["created_at"][:19], _metrics_text(row["metrics"])
    return row["version"], " ".join(row["aliases"]), created, row["run"], metrics


@reported
def aliases(model: Model, store: StoreUri = None, as_json: AsJson = False) -> None:
    """Show where each alias of a model points, and every move that led there."""
    from raypipe.registry.aliases import Aliases
    from raypipe.registry.versions import resolve, version_numbers
    from raypipe.storage import open_store

    opened = open_store(store)
    numbers, listed = version_numbers(opened, model), Aliases(opened, model).listed()
    if not numbers and not listed:
        resolve(opened, model)  # says what there is instead
    if as_json:
        show_json([_alias_document(each.name, each.record, each.problem, numbers) for each in listed])
        return
    moves = [
        (each.name, move.version, move.moved_at[:19], _alias_state(each.record, move.nonce, numbers))
        for each in listed
        if each.record is not None
        for move in each.record.history
    ]
    show_table(("alias", "version", "moved", ""), [*moves, *[(e.name, "", "", e.problem) for e in listed if e.problem]])


def _alias_state(alias: Any, nonce: str, numbers: list[int]) -> str:
    """What there is to say about one move of an alias."""
    if nonce != alias.nonce:
        return ""
    return "now" if alias.version in numbers else "now, but this version is gone"


def _alias_document(name: str, alias: Any, problem: str, numbers: list[int]) -> dict[str, Any]:
    if alias is None:
        return {"alias": name, "damaged": problem}
    return {
        "alias": name,
        "version": alias.version,
        "version_exists": alias.version in numbers,
        "moved_at": alias.moved_at,
        "rolls_back_to": alias.previous[-1] if alias.previous else None,
        "history": [{"version": move.version, "moved_at": move.moved_at} for move in alias.history],
    }


@reported
def show_version(reference: Reference, store: StoreUri = None, as_json: AsJson = False) -> None:
    """Show one version: what it reads, what it answers, how it was judged."""
    from raypipe.model.tasks import task_of
    from raypipe.registry.versions import resolve
    from raypipe.storage import open_store

    version = resolve(open_store(store), reference)
    if as_json:
        show_json(version.model_dump(mode="json"))
        return
    show(f"{version.model}@{version.version}  registered {version.created_at} by run {version.run_id}")
    show(f"  artifact  {version.artifact.key} (SHA-256 {version.artifact.digest[:12]})")
    show(f"  dataset   {version.dataset}")
    show(f"  metrics   {_metrics_text(version.metrics)}, on {version.evaluation.rows_text}")
    for gate in version.evaluation.gates:
        show(f"  gate      {gate.rule}: {gate.reason}")
    for column in version.signature.inputs:
        shape = f" {list(column.shape)}" if column.shape else ""
        show(f"  reads     {column.name}: {column.dtype}{shape}{', may be missing' if column.nullable else ''}")
    task = task_of(version.signature)
    for column in task.columns_of("answer"):
        any_value = "a text" if task.answers_texts else "a number"
        what = f"{'any' if column.is_set else 'one'} of {list(column.labels)}" if column.labels else any_value
        show(f"  answers   {version.signature.target_text if column.labels else column.name}: {what}")


@reported
def diff(first: Reference, second: Reference, store: StoreUri = None, as_json: AsJson = False) -> None:
    """Show what differs between two versions: metrics, dataset, and fields of the pipeline file."""
    from raypipe.registry.versions import resolve
    from raypipe.storage import open_store

    opened = open_store(store)
    one, two = _facts(opened, resolve(opened, first)), _facts(opened, resolve(opened, second))
    rows = [(key, one.get(key), two.get(key)) for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
    if as_json:
        show_json({key: [before, after] for key, before, after in rows})
    elif rows:
        show_table(("", first, second), rows)
    else:
        show("no difference")


@reported
def lineage(reference: Reference, store: StoreUri = None, as_json: AsJson = False) -> None:
    """Show where a version comes from: run, file, dataset, source."""
    from raypipe.pipeline.state import read_run
    from raypipe.registry.versions import resolve
    from raypipe.storage import layout, open_store

    opened = open_store(store)
    version = resolve(opened, reference)
    run = read_run(opened, version.run_id) or {}
    spec = run.get("spec", {})
    chain = {
        "model": f"{version.model}@{version.version}",
        "artifact": version.artifact.key,
        "digest": version.artifact.digest,
        "run": layout.run(version.run_id),
        "started_at": run.get("started_at"),
        "raypipe": run.get("raypipe"),
        "file": run.get("file"),
        "overrides": run.get("overrides"),
        "network": spec.get("model"),
        "seed": spec.get("seed"),
        "dataset": layout.dataset(spec["name"], version.dataset) if "name" in spec else version.dataset,
        "source": spec.get("data", {}).get("source"),
        "root": spec.get("data", {}).get("root"),
    }
    if as_json:
        show_json(chain)
        return
    for key, value in chain.items():
        if value not in (None, []):
            show(f"{key:<11} {value}")


@reported
def promote(
    reference: Annotated[str, typer.Argument(help="MODEL@VERSION to point at.", show_default=False)],
    alias: Alias = "champion",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the move, change nothing.")] = False,
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias at a model version; prints the old and the new target."""
    from raypipe.registry import versions as registry
    from raypipe.registry.aliases import Aliases
    from raypipe.storage import open_store

    opened = open_store(store)
    version = registry.resolve(opened, reference)
    if dry_run:
        registry.check_artifact(opened, version)
        before, target = Aliases(opened, version.model).get(alias), version.version
    else:
        before, after = registry.promote(opened, reference, alias)
        target = after.version
    _show_move(version.model, alias, None if before is None else before.version, target, as_json, dry_run)


@reported
def rollback(model: Model, alias: Alias = "champion", store: StoreUri = None, as_json: AsJson = False) -> None:
    """Point an alias back at the version it pointed at before, if that is still there and whole."""
    from raypipe.registry import versions as registry
    from raypipe.storage import open_store

    before, after = registry.rollback(open_store(store), model, alias)
    _show_move(model, alias, before.version, after.version, as_json, False)


@reported
def export(
    reference: Reference,
    out: Annotated[str, typer.Option("--out", metavar="URI", help="A folder, a file *.tar.gz, or s3://bucket/prefix.")],
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """Copy one version out of its registry, for a container to serve; every byte is checked."""
    from raypipe.registry.export import ARCHIVES, export_archive
    from raypipe.registry.export import export as export_to
    from raypipe.registry.versions import resolve
    from raypipe.storage import open_store

    opened = open_store(store)
    version = resolve(opened, reference)
    if out.endswith(ARCHIVES) and "://" not in out:
        export_archive(opened, version, Path(out))
    else:
        export_to(opened, version, open_store(out))
    if as_json:
        show_json({"model": version.model, "version": version.version, "out": out})
        return
    show(f"{version.model}@{version.version} -> {out}")


def _show_move(model: str, alias: str, before: int | None, after: int, as_json: bool, dry_run: bool) -> None:
    if as_json:
        show_json({"model": model, "alias": alias, "before": before, "after": after, "changed": not dry_run})
        return
    was = "new" if before is None else f"was {model}@{before}"
    show(f"{model}@{alias} -> {model}@{after} ({was}){'; nothing changed: --dry-run' if dry_run else ''}")


def _facts(store: Any, version: ModelVersion) -> dict[str, Any]:
    """What can differ between two versions, flat."""
    from raypipe.pipeline.state import flat, read_run

    run = read_run(store, version.run_id) or {}
    return {
        **{name: number(value) for name, value in version.metrics.items()},
        "dataset": version.dataset,
        "artifact": version.artifact.digest[:12],
        "run": version.run_id,
        **flat(run.get("spec", {})),
    }


def _metrics_text(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in main_metrics(metrics).items())


def _aliases_text(aliases: dict[str, int], broken: dict[str, str]) -> str:
    texts = [f"{name} -> {version}" for name, version in sorted(aliases.items()) if name not in broken]
    texts += [f"{name} -> {aliases.get(name, '?')} ({problem})" for name, problem in sorted(broken.items())]
    return ", ".join(texts)
