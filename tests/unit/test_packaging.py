"""What is installed is what was tested: every dependency is pinned, and the pins satisfy what pyproject asks for."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]  (pytest brings it to Python 3.10)

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def constraint_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def dependencies() -> list[Requirement]:
    extras = [line for group in PROJECT["optional-dependencies"].values() for line in group]
    return [Requirement(line) for line in PROJECT["dependencies"] + extras]


def marker_environment(python: str) -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}


def pins_on(python: str) -> dict[str, list[Version]]:
    """Package name -> versions pinned for one Python version; more than one is a mistake."""
    found: dict[str, list[Version]] = {}
    for line in constraint_lines():
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(marker_environment(python)):
            (only,) = pin.specifier
            found.setdefault(canonicalize_name(pin.name), []).append(Version(only.version))
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_every_dependency_within_its_range(python: str):
    pins = pins_on(python)
    wrong: list[str] = []
    for need in dependencies():
        if need.name == "raypipe":  # an extra that brings another extra along
            continue
        if need.marker is not None and not need.marker.evaluate(marker_environment(python)):
            continue
        versions = pins.get(canonicalize_name(need.name), [])
        if len(versions) != 1 or versions[0] not in need.specifier:
            wrong.append(f"{need}: pinned to {[str(version) for version in versions] or 'nothing'}")
    assert wrong == []


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All that stand below a node, without a look into expressions, which hold none and are most of a file."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from statements(child)


def imported_packages() -> Iterator[tuple[str, Path]]:
    """Top-level packages that raypipe's own files import at run time, each with a file that does."""
    for file in sorted((ROOT / "raypipe").rglob("*.py")):
        for node in statements(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], file) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield str(node.module).partition(".")[0], file


def test_dependencies_name_every_package_that_is_imported():
    owners = packages_distributions()
    declared = {canonicalize_name(need.name) for need in dependencies()}
    undeclared = {
        f"{file.relative_to(ROOT)} imports {package}"
        for package, file in imported_packages()
        if package != "raypipe"
        and package in owners  # the rest is Python's own, or carried along inside Ray
        and not declared & {canonicalize_name(owner) for owner in owners[package]}
    }
    assert undeclared == set()


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_no_package_twice(python: str):
    assert {name for name, versions in pins_on(python).items() if len(versions) > 1} == set()


def test_constraints_hold_plain_pins_without_build_tags_or_addresses():
    plain = re.compile(r'[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*(; python_version (<|>=) "3\.\d+")?')
    assert [line for line in constraint_lines() if not plain.fullmatch(line)] == []


# --- every wheel is checked before anything of it runs (.ci/install.py) ---------------------------------------------


def test_every_pin_lists_the_hash_of_a_wheel(installer: ModuleType):
    hashes = installer.listed_hashes((ROOT / "constraints.txt").read_text())
    pins = [Requirement(line) for line in constraint_lines()]
    assert [str(pin) for pin in pins if not hashes[installer.key(pin.name, str(pin.specifier)[2:])]] == []
    assert [pin for pin, wheels in hashes.items() if not wheels] == []  # the `#: ` lines too


def test_torch_lists_its_cpu_build_beside_the_public_wheels(installer: ModuleType):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    torch = lines.index(next(line for line in lines if line.startswith("torch==")))
    by_hand = [line for line in lines[torch + 1 :] if (wheel := installer.HASH.fullmatch(line)) and wheel["why"]]
    assert len(by_hand) == 1 and "CPU build" in by_hand[0]


@pytest.mark.parametrize("python", PYTHONS)
def test_what_builds_raypipe_is_pinned(python: str):
    pins = pins_on(python)
    build = {"hatchling", "editables", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers"}
    assert {name for name in build if len(pins.get(name, [])) != 1} == set()


def test_makefile_installs_through_the_hash_checking_program_only():
    recipes = re.findall(r"^\t(.*(?:INSTALL|pip install).*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert [recipe for recipe in recipes if "$(INSTALL)" in recipe] == [
        "$(INSTALL)",
        "$(INSTALL) dev",
        "$(INSTALL) dev,bench,keras",
    ]
    assert [recipe for recipe in recipes if "pip" in recipe] == []


def test_hashes_made_anew_are_those_of_wheels_for_our_pythons_and_keep_what_was_put_by_hand(installer: ModuleType):
    names = {
        "1" * 64: "a-1.0-cp312-cp312-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "2" * 64: "a-1.0-cp39-abi3-macosx_11_0_arm64.whl",
        "3" * 64: "a-1.0-py2.py3-none-any.whl",
        "4" * 64: "a-1.0-cp312-cp312-musllinux_1_2_x86_64.whl",
        "5" * 64: "a-1.0-cp313-cp313t-manylinux_2_28_aarch64.whl",
        "6" * 64: "a-1.0-cp314-cp314-manylinux_2_28_aarch64.whl",
        "7" * 64: "a-1.0-cp311-cp311-win_amd64.whl",
    }
    wheels = [{"url": f"packages/{name}", "hashes": {"sha256": digest}} for digest, name in names.items()]
    lock = {"packages": [{"name": "a", "version": "1.0", "wheels": wheels}]}
    by_hand = f"#   sha256:{'8' * 64} another build"
    made = installer.with_hashes(f"# head\na==1.0\n#   sha256:{'9' * 64}\n{by_hand}\n", lock)
    assert made.splitlines() == [
        "# head",
        "a==1.0",
        *(f"#   sha256:{digit * 64}" for digit in "123"),
        by_hand,
    ]
    with pytest.raises(SystemExit, match=r"lacks a pin for a==1\.0"):
        installer.with_hashes("# head\n", lock)
    with pytest.raises(SystemExit, match=r"no wheel for b==1\.0"):
        installer.with_hashes("a==1.0\nb==1.0\n", lock)


def test_version_agrees_with_the_package():
    import raypipe

    assert raypipe.__version__ == PROJECT["version"]


def test_every_makefile_target_that_others_rely_on_exists_and_has_a_help_line():
    promised = {
        "install",
        "demo",
        "serve",
        "check",
        "test",
        "integration",
        "chaos",
        "bench",
        "examples",
        "fix",
        "clean",
    }
    documented = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert promised - documented == set()
