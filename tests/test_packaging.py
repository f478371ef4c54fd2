"""What is installed is what is here: built as an operator's pip would, and without a network."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tests import mutation
from tests.tmpfs import need

Build = Callable[..., set[str]]

ROOT = Path(__file__).parent.parent
(VERSION,) = re.findall(r'^VERSION = "(.+?)"', (ROOT / "setup.py").read_text(), re.M)
EXAMPLE = ROOT / "examples" / "smsgw-example"


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a wheel of a copy of those files, so that nothing is left in the tree: the names in it.

    ``git`` makes the copy a checkout first: a commit with that tag, or with none where it is empty.
    """

    def build(root: Path, *names: str, git: str | None = None) -> set[str]:
        for name in names:
            source, target = root / name, tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info"))
            else:
                shutil.copy(source, target)
        if git is not None:
            commit(tmp_path / "source", git)
        options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(tmp_path / "wheels")]
        command = [sys.executable, "-m", "pip", "wheel", *options, str(tmp_path / "source")]
        ran = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert ran.returncode == 0, ran.stdout
        (wheel,) = (tmp_path / "wheels").glob("*.whl")
        with zipfile.ZipFile(wheel) as found:
            return set(found.namelist())

    return build


def commit(folder: Path, tag: str) -> None:
    who = ["-c", "user.name=smsgw", "-c", "user.email=smsgw@example.com"]
    commands = [["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "All"]]
    for command in [*commands, ["tag", tag]] if tag else commands:
        subprocess.run(["git", *command], cwd=folder, check=True)


def sources(folder: Path, package: str) -> set[str]:
    return {f"{package}/{path.relative_to(folder)}" for path in folder.rglob("*.py")}


WHEEL = ("smsgw", "plugins", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def information(names: set[str]) -> str:
    """The folder in a wheel that has its name and version."""
    (found,) = {folder for name in names if (folder := name.partition("/")[0]).endswith(".dist-info")}
    return found


def test_the_wheel_has_everything(build: Build) -> None:
    """Also where it is built of a folder without Git."""
    names = build(ROOT, *WHEEL)
    own = f"smsgw-{VERSION}.dist-info"
    wanted = sources(ROOT / "smsgw", "smsgw") | sources(ROOT / "plugins", "smsgw_plugins") | {"smsgw/py.typed"}
    assert (wanted | {f"{own}/licenses/LICENSE"}) - names == set()
    assert {name.partition("/")[0] for name in names} == {"smsgw", "smsgw_plugins", own}


def test_a_build_names_its_commit(build: Build) -> None:
    folder = information(build(ROOT, *WHEEL, git=""))
    assert re.fullmatch(rf"smsgw-{re.escape(VERSION)}\+g[0-9a-f]{{7,}}\.dist-info", folder)


def test_a_build_of_a_release_names_the_release_alone(build: Build) -> None:
    assert information(build(ROOT, *WHEEL, git=f"v{VERSION}")) == f"smsgw-{VERSION}.dist-info"


def test_versions_of_lint_stand_in_one_place() -> None:
    for path in (ROOT / "check", ROOT / ".ci" / "run", ROOT / "CONTRIBUTING.md", ROOT / "README.md"):
        assert not re.search(r"(ruff|mypy)[=<>~]", path.read_text()), path
    for name in ("check", ".ci/run"):
        assert os.access(ROOT / name, os.X_OK), name


def test_contributing_names_commands_that_there_are() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    extras = {extra for found in re.findall(r'-e "\.\[([a-z,]+)\]"', text) for extra in found.split(",")}
    assert extras == {"test", "lint"}
    assert extras <= set(metadata("smsgw").get_all("Provides-Extra"))
    (command,) = re.findall(r"python -m (tests\.mutation .*)", text)
    module, path, *options = shlex.split(command)
    assert (ROOT / path).exists()
    assert mutation.arguments([path, *options]).seed == 1
    assert module == mutation.__name__


def test_contributing_names_the_programs_that_ci_installs() -> None:
    """And ``python3-venv``, which comes before the first command."""
    (installed,) = re.findall(r'^packages="(.*)"$', (ROOT / ".ci" / "run").read_text(), re.M)
    (named,) = re.findall(r"^apt install (.*)$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert set(installed.split()) == {*named.split(), "python3-venv"}


def test_the_wheel_of_the_example_has_everything(build: Build) -> None:
    names = build(EXAMPLE, "src", "pyproject.toml", "README.md")
    assert (sources(EXAMPLE / "src", ".") | {"./smsgw_example/py.typed"}) - {f"./{name}" for name in names} == set()
    assert {name.partition("/")[0] for name in names} == {"smsgw_example", "smsgw_example-1.0.dist-info"}


UNIT = ROOT / "packaging" / "smsgw.service"


def test_the_unit_runs_what_pip_installs() -> None:
    """As the user that the document makes, and the package."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    service = parser["Service"]
    operation = (ROOT / "docs" / "operation.md").read_text()
    assert f"\nrunuser -u {service['User']} -- {service['ExecStart']}\n" in operation
    assert f"\nadduser --system --group {service['User']} " in operation
    assert f"\nu {service['User']} " in (UNIT.parent / "smsgw.sysusers").read_text()


def test_systemd_knows_every_word_of_the_unit(tmp_path: Path) -> None:
    need("systemd-analyze")
    path = tmp_path / "smsgw.service"
    unit = UNIT.read_text().replace("ExecStart=/opt/smsgw/bin/", f"ExecStart={Path(sys.executable).parent}/")
    path.write_text(unit.replace("User=smsgw", "User=root"))
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert str(path) not in said


def test_the_unit_is_hardened() -> None:
    """10.0 would be a service that may do everything."""
    need("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_package_has_what_every_shipped_plugin_needs() -> None:
    """The extra ``all`` is that of each plugin together."""
    wanted: dict[str, set[str]] = {}
    for requirement in metadata("smsgw").get_all("Requires-Dist"):
        name, _, marker = requirement.partition(";")
        for extra in re.findall(r'extra == "(\w+)"', marker):
            wanted.setdefault(extra, set()).add(name.strip())
    others = {"all", "granian", "lint", "test", "testing"}
    assert wanted["all"] == {name for extra in wanted.keys() - others for name in wanted[extra]}
