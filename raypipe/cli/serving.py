"""Commands about what is registered and running: serve, status, stop, predict."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raypipe.cli.options import Allow, AsJson, Code, Reference, StoreUri
from raypipe.cli.output import reported, say, show, show_json, show_table
from raypipe.errors import ClusterError, ServeError, SpecError
from raypipe.spec.endings import without_ending

if TYPE_CHECKING:
    from raypipe.records import BatchOutput, ModelVersion, Reading
    from raypipe.runtime.context import RunContext
    from raypipe.storage import Store

FORMATS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""File name ending -> format, where --format is not given."""

BY_PATH = "csv, parquet, jsonl, arrow, images, sound, numpy or text"
"""Formats of files that one path names."""

Address = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDRESS", help="Ray cluster; else $RAY_ADDRESS, or this machine's."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (serve, status, stop, predict):
        app.command()(command)


@reported
def serve(
    reference: Reference,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    min_replicas: Annotated[int, typer.Option(help="Replicas kept without load.")] = 1,
    max_replicas: Annotated[int, typer.Option(help="Replicas under load at most.")] = 2,
    keys_file: Annotated[
        Path | None, typer.Option("--keys-file", metavar="PATH", help="API keys: the lines that `raypipe key` makes.")
    ] = None,
    keys_env: Annotated[
        str | None, typer.Option("--keys-env", metavar="NAME", help="The same, in a variable that Ray starts with.")
    ] = None,
    cert_file: Annotated[
        Path | None, typer.Option("--cert-file", metavar="PATH", help="HTTPS: certificate, PEM.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option("--key-file", metavar="PATH", help="Its private key, PEM.")] = None,
    plaintext: Annotated[
        bool,
        typer.Option("--allow-plaintext-keys", help="Take keys without TLS, or on several nodes, over a safe network."),
    ] = False,
    code: Code = None,
    allow: Allow = None,
    address: Address = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Deploy, ask it once, end.")] = False,
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """Deploy a registered model behind HTTP; on a Ray started here it stays until Ctrl-C."""
    from raypipe.pipeline.ahead import stop_serving
    from raypipe.pipeline.api import starts_ray_here, wait_until_stopped
    from raypipe.pipeline.demand import serve_demand
    from raypipe.pipeline.stages import import_rooms, probe_rows
    from raypipe.registry.versions import resolve
    from raypipe.runtime.connect import connect
    from raypipe.runtime.reach import check_shared, open_reachable
    from raypipe.serve.ingress import check_port_free

    access = _access(keys_file, keys_env, cert_file, key_file) | {"allow_plaintext_keys": plaintext}
    spec = _checked("serve", host=host, port=port, min_replicas=min_replicas, max_replicas=max_replicas, **access)
    if address is None and starts_ray_here():
        check_port_free(spec.host, spec.port)  # before seconds of imports
    opened = open_reachable(store)
    version = resolve(opened, reference)
    from raypipe.serve.stage import deploy

    code_dir = code.resolve() if code else None
    ctx = _context(opened, version, code_dir)
    demand, imports = serve_demand(spec), partial(import_rooms, ["serve"])
    with connect(demand, address=address, code_dir=code_dir, progress=ctx.progress, while_starting=imports) as cluster:
        check_shared(opened)
        try:
            endpoint = deploy(spec, version, ctx, probe_rows=probe_rows(opened, version))
            _show_endpoint(endpoint, as_json)
            if not no_wait and cluster.started_here:
                say("serving; Ctrl-C stops it")
                wait_until_stopped(endpoint)
        finally:
            if cluster.started_here:
                stop_serving()


@reported
def status(address: Address = None, as_json: AsJson = False) -> None:
    """List what is served on the cluster, or by raypipe on this machine."""
    rows = [row for served in _each_cluster(address) for row in served.status()]
    if as_json:
        show_json(rows)
        return
    if not rows:
        show("nothing is served")
        return
    keys = list(dict.fromkeys(key for row in rows for key in row))
    show_table(keys, [[row.get(key) for key in keys] for row in rows])


@reported
def stop(
    name: Annotated[str | None, typer.Argument(help="Application; unset: all.")] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Take an endpoint down, or all; `raypipe run` and `serve` that wait for it end."""
    stopped: list[str] = []
    there: list[str] = []
    for served in _each_cluster(address):
        names = [row["name"] for row in served.status()]
        there += names
        if name is None and names:
            stopped += served.stop()
        elif name in names:
            stopped += served.stop(name)
    if name is not None and not stopped:
        raise ServeError(
            f"no application '{name}' is served; there are: {', '.join(there) or 'none'}", "raypipe status"
        )
    if as_json:
        show_json({"stopped": stopped})
    else:
        show(f"stopped {', '.join(stopped)}" if stopped else "nothing is served")


@reported
def predict(
    reference: Reference,
    source: Annotated[str, typer.Option("--input", metavar="URI", help="File, folder, glob or s3:// prefix.")],
    output: Annotated[str, typer.Option("--output", metavar="URI", help="Folder or s3:// prefix for Parquet shards.")],
    file_format: Annotated[
        str | None, typer.Option("--format", help=f"{BY_PATH}; unset: by its ending, else as in training.")
    ] = None,
    read: Annotated[
        list[str] | None,
        typer.Option(
            "--read", metavar="FIELD=VALUE", help="A field of data.source, e.g. delimiter=; else as in training."
        ),
    ] = None,
    num_workers: Annotated[int, typer.Option("--workers", help="Scoring processes.")] = 1,
    code: Code = None,
    allow: Allow = None,
    address: Address = None,
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """Predict whole files with Ray Data: the same rows with predictions out."""
    written = predict_files(
        reference, source, output, file_format, num_workers, read=read, store=store, address=address, code_dir=code
    )
    if as_json:
        show_json(written.model_dump(mode="json"))
    else:
        show(f"{written.num_rows} rows by {written.model}@{written.version} in {written.num_shards} files under")
        show(f"  {written.output}")


def predict_files(
    reference: str,
    source: str,
    output: str,
    file_format: str | None,
    num_workers: int,
    *,
    read: Sequence[str] | None = None,
    store: str | None = None,
    address: str | None = None,
    code_dir: Path | None = None,
) -> BatchOutput:
    """Batch inference as the command does it; also what jobs/predict.py calls.

    Args:
        read: `field=value` of the source, before what the model's training data was read with.

    Raises:
        SpecError: the format cannot be told, or an option does not fit.
        RaypipeError: see raypipe/batch/stage.py.
    """
    from raypipe.registry.versions import resolve
    from raypipe.runtime.connect import connect, in_job
    from raypipe.runtime.reach import check_shared, lasting, open_reachable
    from raypipe.runtime.resources import Bundle, Demand
    from raypipe.spec.addresses import check_address
    from raypipe.spec.resources import ResourceSpec
    from raypipe.storage import open_store

    for option, uri in (("--input", source), ("--output", output)):
        try:
            check_address(uri)  # before any other message, which would show it
        except ValueError as error:
            raise SpecError(f"{option}: {error}") from None
    if in_job():
        lasting(output, "--output")
    fields = _read_fields(read or ())
    if file_format is not None and file_format not in _formats():
        raise SpecError(f"--format: found {file_format!r}; must be {BY_PATH}")
    opened = open_reachable(store)
    opened.check()
    version = resolve(opened, reference)
    from raypipe.batch.reading import source_fields
    from raypipe.batch.stage import predict_batch

    reading = version.signature.reading
    wanted = {**fields, "format": file_format or _format_of(source, reading), "path": _absolute(source)}
    wanted = source_fields(wanted, reading)
    spec = _checked("batch", source=wanted, output=_absolute(output), num_workers=num_workers)

    code_dir = code_dir.resolve() if code_dir else None
    readers = Bundle("reading rows", 1, ResourceSpec())
    demand = Demand(groups=((Bundle("predict", spec.num_workers, spec.resources), readers),))
    ctx = _context(opened, version, code_dir)
    with connect(demand, address=address, code_dir=code_dir, progress=ctx.progress):
        for each in (opened, open_store(spec.output)):
            check_shared(each)
        return predict_batch(spec, version, ctx)


def _each_cluster(address: str | None) -> Iterator[ModuleType]:
    """Be on the named cluster, or, without a name, on each Ray that raypipe started on this machine for this user.

    Yields:
        raypipe.serve.stage, connected.
    """
    from raypipe.runtime import local
    from raypipe.runtime.connect import connect
    from raypipe.runtime.environment import hush
    from raypipe.runtime.resources import Demand

    named = address or os.environ.get("RAY_ADDRESS")
    for each in [named] if named else local.addresses():
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(connect(Demand(data_cpus=0), address=each))
            except ClusterError:
                if named:
                    raise
                continue  # it is just ending
            import ray.serve  # noqa: F401  (sets its log level when imported, not after)

            from raypipe.serve import stage

            hush()
            yield stage


def _checked(kind: str, **values: Any) -> Any:
    """A spec made of options; what does not fit names the option."""
    from pydantic import ValidationError

    from raypipe.spec.batch import BatchSpec
    from raypipe.spec.serve import ServeSpec

    try:
        return {"serve": ServeSpec, "batch": BatchSpec}[kind].model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [str(part) for part in first["loc"]]
        what = first["msg"].removeprefix("Value error, ")
        if place[:1] == ["source"] and len(place) > 2:  # source, format, field
            option = "--input" if place[2] == "path" else f"--read {place[2]}"
            if first["type"] == "missing":
                raise SpecError(
                    f"format {place[1]} needs to know {place[2]}, and the model does not",
                    f"give --read {place[2]}=VALUE",
                ) from None
        else:
            if not place:
                raise SpecError(what) from None
            option = "--format" if place == ["source"] else "--" + place[-1].replace("_", "-")
        raise SpecError(f"{option}: found {_found(first['input'])}; {what}") from None


def _access(
    keys_file: Path | None, keys_env: str | None, cert_file: Path | None, key_file: Path | None
) -> dict[str, Any]:
    """Fields of ServeSpec about who may ask, and how; paths as replicas find them."""
    if keys_file is not None and keys_env is not None:
        raise SpecError("--keys-file and --keys-env: keys are in one place", "leave one out")
    if (cert_file is None) != (key_file is None):
        raise SpecError("--cert-file and --key-file: HTTPS needs both", "give the other one, too")
    fields: dict[str, Any] = {}
    if keys_file is not None or keys_env is not None:
        fields["auth"] = {"keys_file": None if keys_file is None else _absolute(str(keys_file)), "keys_env": keys_env}
    if cert_file is not None:
        fields["tls"] = {"cert_file": _absolute(str(cert_file)), "key_file": _absolute(str(key_file))}
    return fields


def _found(value: Any) -> str:
    return repr(value.get("format") if isinstance(value, dict) else value)


def _read_fields(read: Sequence[str]) -> dict[str, Any]:
    """`field=value` of --read, the value as YAML, or as it is written where that is none."""
    import yaml

    fields: dict[str, Any] = {}
    for each in read:
        name, sign, text = each.partition("=")
        if not sign or not name or name in ("format", "path"):
            raise SpecError(
                f"--read {each}: must be field=value, a field of data.source beside format and path",
                "for example --read 'delimiter=;'",
            )
        try:
            fields[name] = yaml.safe_load(text) if text else ""
        except (yaml.YAMLError, ValueError):
            fields[name] = text
    return fields


def _formats() -> Sequence[str]:
    return BY_PATH.replace(" or ", ", ").split(", ")


def _format_of(uri: str, reading: Reading | None) -> str:
    """By the ending, else that of the rows the model learned."""
    ending = Path(without_ending(uri, ".gz")).suffix.lower()
    if ending in FORMATS:
        return FORMATS[ending]
    if reading is not None and reading.format in _formats():
        return reading.format
    raise SpecError(f"--input {uri}: the ending does not tell the format", f"give --format {BY_PATH}")


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def _context(store: Store, version: ModelVersion, code_dir: Path | None) -> RunContext:
    from raypipe.runtime.context import RunContext, new_run_id
    from raypipe.runtime.progress import Progress

    run_id = new_run_id()
    return RunContext(run_id=run_id, store=store, progress=Progress(run_id), name=version.model, code_dir=code_dir)


def _show_endpoint(endpoint: Any, as_json: bool) -> None:
    from raypipe.cli.summary import endpoint_document, show_endpoint

    told = endpoint_document(endpoint)
    if as_json:
        show_json(told)
    else:
        show_endpoint(told)
