"""The folder a Ray lives in: who may enter, where it may be, what is left of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raypipe.errors import ClusterError, SpecError
from raypipe.runtime import private
from raypipe.runtime.private import LOCK, PREFIX, SESSIONS, in_use, private_folder

HOLD = """
import sys, time
from raypipe.runtime.private import private_folder
with private_folder() as folder:
    (folder / "ray" / "session_1" / "ray_spilled_objects_1").mkdir(parents=True)
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_parent(private_dir: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    parent = private_dir / f"p{abs(hash(request.node.name)) % 1_000_000}"
    parent.mkdir(mode=0o700)
    monkeypatch.setenv("RAY_TMPDIR", str(parent))
    monkeypatch.setattr(private, "SHORT_PARENTS", (str(private_dir),))
    monkeypatch.setattr(private, "SHORT_BYTES", len(str(private_dir)) + 17)
    return parent


def test_folder_is_for_this_user_alone_and_gone_when_all_went_well():
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(in_use()) == [folder]
    assert not folder.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_another_user_cannot_look_into_what_ray_opens_to_everybody(own_parent: Path):
    with private_folder() as folder:
        session = folder / SESSIONS / "session_1"
        session.mkdir(parents=True)
        for opened in (folder / SESSIONS, session):
            opened.chmod(0o777)  # as Ray does
        own_parent.parent.chmod(0o755)
        own_parent.chmod(0o755)
        for path in (session, (folder / SESSIONS).resolve()):
            seen = subprocess.run(["ls", str(path)], user=65534, capture_output=True, text=True, cwd="/", timeout=30)
            assert seen.returncode != 0 and "Permission denied" in seen.stderr


def test_folder_with_a_long_name_is_reached_by_a_short_one_and_both_go(own_parent: Path):
    with private_folder() as folder:
        sessions = (folder / SESSIONS).resolve()
        assert own_parent in sessions.parents and own_parent not in folder.parents
        assert stat.S_IMODE(sessions.parent.stat().st_mode) == 0o700
    assert not folder.exists() and not sessions.parent.exists()


def test_folder_of_a_failed_run_stays_for_its_logs_and_goes_after_a_day():
    with pytest.raises(ClusterError, match="lost"), private_folder() as folder:
        raise ClusterError("lost")
    with private_folder():
        assert folder.exists()
    yesterday = time.time() - private.KEEP_S - 1
    os.utime(folder / LOCK, (yesterday, yesterday))
    with private_folder():
        assert not folder.exists()


def test_folder_goes_at_once_when_the_file_or_the_data_was_wrong():
    with pytest.raises(SpecError, match="typo"), private_folder() as folder:
        raise SpecError("typo")
    assert not folder.exists()


def test_what_a_killed_process_spilled_is_removed_and_what_a_living_one_has_stays(
    private_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_TMPDIR", str(private_dir))  # short enough to need no other folder
    living, killed = (
        subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    try:
        assert living.stdout is not None and killed.stdout is not None
        stays, left = (Path(lines.readline().strip()) for lines in (living.stdout, killed.stdout))
        killed.kill()
        killed.wait(30)
        with private_folder():
            assert list((stays / SESSIONS).glob("*/ray_spilled*"))
            assert not list((left / SESSIONS).glob("*/ray_spilled*"))
            assert stays in in_use() and left not in in_use()
    finally:
        for process in (living, killed):
            process.kill()
            process.communicate(timeout=30)


def test_hostile_folders_of_the_same_name_are_neither_entered_nor_removed(own_parent: Path, tmp_path: Path):
    link = own_parent / f"{PREFIX}00000000"
    link.symlink_to(tmp_path)
    opened = own_parent / f"{PREFIX}00000001"
    opened.mkdir()
    opened.chmod(0o777)
    for place in (tmp_path, opened):
        (place / LOCK).touch()
        os.utime(place / LOCK, (0, 0))
    with private_folder() as folder:
        assert folder not in (link, opened)
    assert link.is_symlink() and (tmp_path / LOCK).exists() and opened.exists()


@pytest.mark.parametrize(
    ("mode", "reason"), [(0o777, "no sticky bit"), (0o700, ""), (0o1777, "")], ids=["open", "own", "as /tmp"]
)
def test_parent_where_others_could_swap_the_folder_is_refused(own_parent: Path, mode: int, reason: str):
    own_parent.chmod(mode)
    if not reason:
        with private_folder():
            return
    with pytest.raises(SpecError, match=reason), private_folder():
        pass


@pytest.mark.parametrize("named", ["/nowhere/at/all", "relative", "/dev/null"])
def test_ray_tmpdir_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, named: str):
    monkeypatch.setenv("RAY_TMPDIR", named)
    with pytest.raises(SpecError, match=f"RAY_TMPDIR={named} ") as raised, private_folder():
        pass
    assert "unset it" in raised.value.hint


def test_tmpdir_that_is_not_there_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", "/nowhere/at/all")
    with private_folder() as folder:
        assert folder.parent in (Path("/tmp"), Path("/var/tmp"))


def test_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, own_parent: Path):
    monkeypatch.setattr(Path, "write_bytes", _full)  # a tmpfs would need root
    with pytest.raises(ClusterError, match=f"{own_parent}: No space left on device"), private_folder():
        pass
    assert list(own_parent.iterdir()) == []


def _full(path: Path, data: object) -> int:
    raise OSError(28, "No space left on device")
