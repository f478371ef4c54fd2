"""What is installed is what is here: built as an operator's pip would, and without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Build = Callable[..., set[str]]

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "smsgw-example"


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a wheel of a copy of those files, so that nothing is left in the tree: the names in it."""

    def build(root: Path, *names: str) -> set[str]:
        for name in names:
            source, target = root / name, tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info"))
            else:
                shutil.copy(source, target)
        options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(tmp_path / "wheels")]
        command = [sys.executable, "-m", "pip", "wheel", *options, str(tmp_path / "source")]
        ran = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert ran.returncode == 0, ran.stdout
        (wheel,) = (tmp_path / "wheels").glob("*.whl")
        with zipfile.ZipFile(wheel) as found:
            return set(found.namelist())

    return build


def sources(folder: Path, package: str) -> set[str]:
    return {f"{package}/{path.relative_to(folder)}" for path in folder.rglob("*.py")}


def test_the_wheel_has_everything(build: Build) -> None:
    names = build(ROOT, "smsgw", "plugins", "setup.py", "pyproject.toml", "README.md")
    wanted = sources(ROOT / "smsgw", "smsgw") | sources(ROOT / "plugins", "smsgw_plugins") | {"smsgw/py.typed"}
    assert wanted - names == set()
    assert {name.partition("/")[0] for name in names} == {"smsgw", "smsgw_plugins", "smsgw-1.0.0.dist-info"}


def test_the_wheel_of_the_example_has_everything(build: Build) -> None:
    names = build(EXAMPLE, "src", "pyproject.toml", "README.md")
    assert (sources(EXAMPLE / "src", ".") | {"./smsgw_example/py.typed"}) - {f"./{name}" for name in names} == set()
    assert {name.partition("/")[0] for name in names} == {"smsgw_example", "smsgw_example-1.0.dist-info"}
