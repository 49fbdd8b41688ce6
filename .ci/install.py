"""Install raypipe into the Python that runs this file, from wheels whose SHA-256 stands in constraints.txt.

    .venv/bin/python .ci/install.py [extras]         # extras as in pyproject.toml: dev,bench
    .venv/bin/python .ci/install.py --write-hashes pylock.toml

Pip's own resolver tells what this machine lacks; pip then installs exactly that with --require-hashes. Nothing of a
package runs before its hash was checked: only wheels are taken, and the build backend is installed the same way before
raypipe itself is built. What is installed already (a torch of one's own choice) is left alone.

Hashes cannot be written as pip's --hash options into constraints.txt: a file given with -c that has them turns hash
checking on for `-e .` too, which pip refuses. So they are comments under each pin, and this file reads them.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--only-binary", ":all:"]
# `#: name==version` holds only where torch comes from here too: another build of torch asks for other versions.
PIN = re.compile(r"(?:#: )?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)")
HASH = re.compile(r"#   sha256:(?P<hex>[0-9a-f]{64})(?P<why> .+)?")
PUBLIC_WHEELS = re.compile(
    r".+-(?:[\w.]*\bpy3\b[\w.]*-none|(?:cp3\d|cp31[0-3])-abi3|(cp31[0-3])-(?:\1|none))"  # CPython 3.10 to 3.13
    r"-(?:any|[\w.]*manylinux[\w.]*_(?:x86_64|aarch64)|macosx_\w[\w.]*)\.whl"
)


def key(name: str, version: str) -> tuple[str, str]:
    """What a pin is looked up by: the normalized name, and the version without its build tag (`+cpu`)."""
    return re.sub(r"[-_.]+", "-", name).lower(), version.partition("+")[0]


def listed_hashes(constraints: str) -> dict[tuple[str, str], list[str]]:
    """Pin -> SHA-256 (hex) of each wheel that may be installed for it."""
    hashes: dict[tuple[str, str], list[str]] = {}
    wheels: list[str] = []
    for line in constraints.splitlines():
        if pin := PIN.match(line):
            wheels = hashes.setdefault(key(pin["name"], pin["version"]), [])
        elif wheel := HASH.fullmatch(line):
            wheels.append(wheel["hex"])
    return hashes


def hashed_requirements(packages: Iterable[tuple[str, str]], hashes: dict[tuple[str, str], list[str]]) -> str:
    """Lines for `pip install --require-hashes -r`; ends the program with a message where a package has no hash."""
    packages = list(packages)
    unknown = [f"{name}=={version}" for name, version in packages if not hashes.get(key(name, version))]
    if unknown:
        sys.exit(
            f"constraints.txt lists no SHA-256 for {', '.join(unknown)}, so nothing was installed. "
            "If pyproject.toml or a pin changed, make the hashes anew (the first lines of constraints.txt say how)."
        )
    return "".join(
        f"{name}=={version} {' '.join(f'--hash=sha256:{wheel}' for wheel in hashes[key(name, version)])}\n"
        for name, version in packages
    )


def install(*requirements: str) -> None:
    """Install what pip finds lacking for `requirements`, each wheel checked; their own folder (`-e .`) is left out."""
    with tempfile.TemporaryDirectory() as folder:
        pins, report, wanted = (Path(folder, name) for name in ("pins.txt", "report.json", "wanted.txt"))
        constraints = CONSTRAINTS.read_text()
        pins.write_text(constraints if find_spec("torch") else constraints.replace("\n#: ", "\n"))
        pip("--dry-run", "--quiet", "--report", str(report), "--no-build-isolation", "-c", str(pins), *requirements)
        lacking = [
            (package["metadata"]["name"], package["metadata"]["version"])
            for package in json.loads(report.read_text())["install"]
            if "dir_info" not in package["download_info"]
        ]
        if lacking:
            wanted.write_text(hashed_requirements(lacking, listed_hashes(constraints)))
            pip("--no-deps", "--require-hashes", "-r", str(wanted))


def pip(*arguments: str) -> None:
    """Run `pip install` in the repository; where it fails it has said why, and the program ends with its status."""
    status = subprocess.run([*PIP, *arguments], cwd=ROOT).returncode
    if status:
        sys.exit(status)


def with_hashes(constraints: str, lock: dict) -> str:
    """`constraints` with the hashes of `lock` (a pylock.toml); one with words behind it was put by hand and stays."""
    wheels = {
        key(package["name"], package["version"]): sorted(
            wheel["hashes"]["sha256"]
            for wheel in package.get("wheels", [])
            if PUBLIC_WHEELS.fullmatch(wheel["url"].rpartition("/")[2])
        )
        for package in lock["packages"]
        if not re.search(r"(^| and )sys_platform == 'win32'$", package.get("marker", ""))
    }
    lines: list[str] = []
    for line in constraints.splitlines():
        pin, wheel = PIN.match(line), HASH.fullmatch(line)
        if not wheel or wheel["why"]:
            lines.append(line)
        if pin:
            digests = wheels.pop(key(pin["name"], pin["version"]), [])
            if not digests:
                sys.exit(f"The lock has no wheel for {pin[0]}: raise or drop that pin, then make the lock anew.")
            lines += [f"#   sha256:{digest}" for digest in digests]
    if wheels:
        sys.exit(f"constraints.txt lacks a pin for {', '.join('=='.join(pin) for pin in sorted(wheels))}: add it.")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--write-hashes"]:
        import tomllib  # Python 3.11 or newer, which only whoever makes the hashes needs

        CONSTRAINTS.write_text(with_hashes(CONSTRAINTS.read_text(), tomllib.loads(Path(arguments[1]).read_text())))
        return
    install("hatchling", "editables")  # what builds `-e .`
    install("-e", f".[{arguments[0]}]" if arguments else ".")
    pip("--no-deps", "--no-build-isolation", "-e", ".")


if __name__ == "__main__":
    main(sys.argv[1:])
