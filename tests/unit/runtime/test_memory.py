from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.runtime.memory import available_bytes

MIB = 2**20


def _machine(root: Path, files: dict[str, object]) -> Path:
    meminfo = f"MemTotal: 9000 kB\nMemAvailable:    {8 * 1024} kB\n"
    for name, text in {"proc/meminfo": meminfo, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def test_available_bytes_without_groups_is_what_the_machine_has_left(tmp_path: Path) -> None:
    assert available_bytes(_machine(tmp_path, {})) == 8 * MIB


def test_available_bytes_of_a_container_is_its_limit_less_what_it_cannot_give_back(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/memory.max": 5 * MIB,
        "sys/fs/cgroup/memory.current": 4 * MIB,
        "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {MIB}",
    }
    assert available_bytes(_machine(tmp_path, files)) == 2 * MIB


@pytest.mark.parametrize(
    ("inner", "outer", "expected"), [("max", 3 * MIB, 2 * MIB), (MIB, "max", 0), ("max", "max", 8 * MIB)]
)
def test_available_bytes_of_nested_groups_is_that_of_the_tightest(
    tmp_path: Path, inner: object, outer: object, expected: int
) -> None:
    group = "sys/fs/cgroup/kubepods"
    files = {
        "proc/self/cgroup": "0::/kubepods/pod1",
        f"{group}/memory.max": outer,
        f"{group}/memory.current": MIB,
        f"{group}/pod1/memory.max": inner,
        f"{group}/pod1/memory.current": 2 * MIB,
    }
    assert available_bytes(_machine(tmp_path, files)) == expected


def test_available_bytes_of_an_old_container_that_does_not_see_its_own_folder(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 5 * MIB,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 3 * MIB,
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0",
    }
    assert available_bytes(_machine(tmp_path, files)) == 2 * MIB


def test_available_bytes_here_is_a_number_this_process_could_use() -> None:
    assert 10 * MIB < available_bytes() < 2**50
