"""`raypipe up` and `down`: a Ray that stays between commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Annotated

import typer

from raypipe.cli.options import AsJson
from raypipe.cli.output import exit_codes, reported, show, show_json
from raypipe.errors import ClusterError
from raypipe.runtime import kept

POLL_S = 0.05


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (up, down):
        app.command()(command)


@reported
def up(
    idle_minutes: Annotated[
        float, typer.Option(min=0.01, help="End it after so long without a command's work or an endpoint.")
    ] = kept.IDLE_S / 60,
    as_json: AsJson = False,
) -> None:
    """Keep a Ray on this machine, on loopback, for this user's later commands: they join it and start in seconds."""
    there = kept.find()
    if there is None:
        there = _start(idle_minutes)
    elif there.unlike_here:
        raise ClusterError(f"a Ray is up that {there.unlike_here}", "raypipe down ends it; then raypipe up again")
    if as_json:
        show_json({"address": there.address, "process": there.process.pid, "since": there.since})
        return
    since = time.strftime("%H:%M:%S", time.localtime(there.since))
    show(f"Ray is up at {there.address} since {since}; commands of this user join it, raypipe down ends it")


@reported
def down(as_json: AsJson = False) -> None:
    """End the Ray that `raypipe up` keeps, with all that runs on it."""
    there = kept.find()
    if there is not None:
        kept.end(there)
    if as_json:
        show_json({"ended": None if there is None else there.address})
    else:
        show("no Ray is up" if there is None else f"the Ray at {there.address} is down")


def _start(idle_minutes: float) -> kept.Kept:
    """Start the process that keeps one, and wait until it can be joined."""
    from raypipe.runtime.progress import Progress

    log = kept.writable_folder() / kept.LOG
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with Progress("").awaiting("ray", "starting Ray on this machine"), log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(idle_minutes * 60)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
            start_new_session=True,  # a closed terminal is no reason to end
        )
        try:
            while (there := kept.find()) is None or there.process.pid != process.pid:
                if process.poll() is not None:
                    raise ClusterError(_reason(log.read_text(encoding="utf-8", errors="replace")), f"see {log}")
                time.sleep(POLL_S)
        except BaseException:  # Ctrl-C too: nobody shall find a Ray that nobody wanted
            process.terminate()
            process.wait()
            raise
    return there


def _reason(said: str) -> str:
    """What the process that ended had to say: its error, else its last line."""
    lines = [line for line in said.splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (told or lines or ["the process that keeps Ray ended without a word"])[-1]


if __name__ == "__main__":
    with exit_codes():
        kept.keep(float(sys.argv[1]))
