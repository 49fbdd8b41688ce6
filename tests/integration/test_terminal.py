"""What a person sees at a terminal: a real pseudo-terminal, read through a terminal emulator."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyte
import pytest

ROOT = Path(__file__).parents[2]
ROWS, WIDE = 40, 160
"""The emulator's terminal is wider than any that is tried: a line that a real one would wrap shows its length."""

Seen = tuple[bytes, list[list[str]]]
"""What a run wrote to a terminal, and what stood there after each piece of it."""

RUN = """
import time
from raypipe.runtime.progress import Progress

progress = Progress("r7f3")
progress.say("run", "r7f3 of pipeline 'digits' in s3://bucket/a-prefix-that-has-no-space-in-it/and/goes-on/for/very/long")
with progress.awaiting("ray", "starting Ray on this machine"):
    time.sleep(0.3)
try:
    with progress.stage("train", "no earlier result"):
        progress.say("train", "warning: a column '\\x1b[2J\\nforged' " + "with many words " * 12)
        for epoch in range(1, 6):
            progress.update(
                "train",
                f"epoch {epoch}/5  step {epoch}00/500  loss 0.02084  val_loss 0.04902  val_accuracy 0.9  left 3s",
                share=epoch / 5, beside="2 worker(s)", step=epoch,
            )
            time.sleep(0.3)
            print("a print of the user's own")
        raise SystemExit
except SystemExit:
    pass
progress.say("serve", "done")
"""  # fmt: skip


def seen(columns: int, **environment: str) -> Seen:
    """RUN at a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=theirs, stdout=theirs, stderr=theirs, env={**env, **environment}, cwd=ROOT
    )
    os.close(theirs)
    written, screens = b"", []
    screen = pyte.Screen(WIDE, ROWS)
    stream = pyte.ByteStream(screen)
    try:
        while piece := _read(ours):
            written += piece
            stream.feed(piece)
            screens.append([line.rstrip() for line in screen.display])
        assert process.wait(60) == 0, written.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return written, screens


def _read(file: int) -> bytes:
    try:
        return os.read(file, 65536)
    except OSError as error:
        if error.errno == errno.EIO:  # nobody writes any more
            return b""
        raise


TERMINALS: dict[str, tuple[int, dict[str, str]]] = {
    "20": (20, {}),
    "80": (80, {}),
    "120": (120, {}),
    "no color": (80, {"NO_COLOR": "1"}),
    "no unicode": (80, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:backslashreplace"}),
    "dumb": (80, {"TERM": "dumb"}),
}
"""Columns and environment of each."""


@pytest.fixture(scope="module")
def terminals() -> dict[str, Seen]:
    """All at once: each mostly sleeps."""
    with ThreadPoolExecutor(len(TERMINALS)) as pool:
        running = {name: pool.submit(seen, columns, **env) for name, (columns, env) in TERMINALS.items()}
        return {name: future.result() for name, future in running.items()}


@pytest.mark.parametrize("columns", [20, 80, 120])
def test_terminal_no_line_is_ever_wider_than_it(columns: int, terminals: dict[str, Seen]):
    _, screens = terminals[str(columns)]
    widest = max((line for screen in screens for line in screen), key=len)
    assert 20 <= len(widest) <= columns, widest


def test_terminal_shows_one_view_that_moves_and_its_last_state_stays(terminals: dict[str, Seen]):
    _, screens = terminals["80"]
    pictures = ["\n".join(screen) for screen in screens]

    clock = re.compile(r"^ray       .*0:0\d$", re.MULTILINE)
    assert any("starting Ray on this machine" in picture and clock.search(picture) for picture in pictures)
    for epoch in range(1, 6):
        moments = [picture for picture in pictures if f"epoch {epoch}/5" in picture]
        assert moments and all(picture.count("epoch ") == 1 for picture in moments)
        assert epoch == 5 or re.search(r"^train     .*2 worker\(s\)  0:\d\d$", moments[-1], re.MULTILINE)

    last = [line for line in screens[-1] if line]
    assert re.fullmatch(r"train     failed after \d+\.\ds", last[-2]) and last[-1] == "serve     done"
    told = " ".join(" ".join(last).split())
    assert "epoch 5/5 step 500/500 loss 0.02084 val_loss 0.04902 val_accuracy 0.9 left 3s" in told
    assert told.count("a print of the user's own") == 5
    assert "worker(s)" not in told, "the bar is gone"


def test_terminal_text_of_others_moves_no_cursor(terminals: dict[str, Seen]):
    written, screens = terminals["80"]
    assert b"\x1b[2J" not in written
    assert r"'\u001b[2J\nforged'" in "\n".join(screens[-1])


def test_no_color_gives_none(terminals: dict[str, Seen]):
    written, _ = terminals["no color"]
    colour = re.compile(rb"\x1b\[[\d;]*(3[1-7]|38)[\d;]*m")
    assert colour.search(terminals["80"][0]) and not colour.search(written)


def test_terminal_of_no_unicode_locale_is_drawn_in_ascii(terminals: dict[str, Seen]):
    written, screens = terminals["no unicode"]
    assert written.isascii() and any("epoch 5/5" in line for line in screens[-1])


def test_dumb_terminal_has_plain_lines(terminals: dict[str, Seen]):
    written, _ = terminals["dumb"]
    assert b"\x1b" not in written and re.search(rb"\d\d:\d\d:\d\d train     epoch 5/5", written)


def test_pipe_has_plain_lines():
    done = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, env={"PYTHONPATH": str(ROOT)}, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0
    assert not re.search(rb"[^\x20-\x7e\n]", done.stderr)
    lines = done.stderr.decode().splitlines()
    assert [line for line in lines if not re.match(r"\d\d:\d\d:\d\d (run|ray|train|serve) +\S", line)] == []
    assert sum("epoch " in line for line in lines) == 5
