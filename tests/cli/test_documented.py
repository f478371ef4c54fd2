"""docs/command-line.md and the README's "Operation": each command is run, and prints what stands below it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import click
import pytest
from pyramid.paster import get_app

from smsgw.cli import main
from smsgw.cli.check.finding import Level
from tests.cli.conftest import SMSGW
from tests.server import free_port
from tests.test_documentation import SHIPPED

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "command-line.md").read_text()
README = (ROOT / "README.md").read_text()
SECTION = README[README.index("## Operation") : README.index("## Documents")]
HERE = "…"  # stands for a folder, and the rest of an id


@pytest.fixture
def development(tmp_path: Path) -> Path:
    """A folder with the development gateway, which has been started once."""
    path = tmp_path / "development.ini"
    path.write_text((ROOT / "development.ini").read_text().replace("127.0.0.1:5000", f"127.0.0.1:{free_port()}"))
    (tmp_path / "development.htpasswd").write_bytes((ROOT / "development.htpasswd").read_bytes())
    (tmp_path / "development.htpasswd").chmod(0o644)
    get_app(str(path)).registry.application.owner.stop()
    return tmp_path


def examples(text: str) -> list[tuple[str, str, str]]:
    """Each command that ends in a line, and what is shown below the last of its block, with the language of that."""
    found = []
    for block, language, shown in re.findall(r"```sh\n(.*?)```\n(?:\n```(text|json)\n(.*?)```)?", text, re.S):
        commands = [line for line in block.splitlines() if re.search(r"(^|[ /])smsgw (?!check /etc)", line)]
        for command in commands:
            last = command is commands[-1] and not block.startswith("runuser")
            found.append((command, language if last else "", shown if last else ""))
    return [example for example in found if not example[0].startswith(("runuser", "eval"))]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.replace(".venv/bin/", "")],
        cwd=folder,
        env={**os.environ, "PATH": f"{SMSGW.parent}:{os.environ['PATH']}", "NO_COLOR": "1"},
        input="SecretPAss\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def normal(text: str, folder: Path) -> list[str]:
    """Without what differs from run to run: folders, ids, times, versions, and the width that these give to columns."""
    text = text.replace(str(folder), HERE)
    text = re.sub(r"(smsgw\.http\.01JD…|smsgw\.http\.[0-9A-Z]{26})", "ID", text)
    text = re.sub(r"\b\d+ ms\b", "0 ms", text)
    text = re.sub(r"\bsmsgw \d\S+", "smsgw 1.0.0", text)
    return [" ".join(line.split()) for line in text.splitlines()]


ALL = [*examples(DOCUMENT), *examples(SECTION)]


def test_every_command_has_an_example() -> None:
    for name, command in main.commands.items():
        if isinstance(command, click.Group):
            continue  # whose own commands stand in a table
        assert any(re.search(rf"smsgw {name}\b", command) for command, _, _ in ALL), name
        assert f"## `smsgw {name} " in DOCUMENT


@pytest.mark.parametrize(("command", "language", "shown"), ALL, ids=[command for command, *_ in ALL])
def test_an_example(development: Path, command: str, language: str, shown: str) -> None:
    ended = run(command, development)
    assert ended.stderr == ""
    assert ended.returncode == (1 if " check " in command or "--bearer" in command else 0)
    if language == "text":
        assert normal(ended.stdout, development) == normal(shown, development)
    elif language == "json":
        found, example = json.loads(ended.stdout), json.loads(shown)
        assert found["status"] == example["status"]
        assert {finding.keys() == example["findings"][0].keys() for finding in found["findings"]} == {True}


def test_the_examples_are_all_that_stand_there() -> None:
    assert len(ALL) == DOCUMENT.count("\nsmsgw ") + SECTION.count("bin/smsgw ") + DOCUMENT.count("| smsgw send")


def test_statuses_and_topics() -> None:
    named = dict(re.findall(r"^\| (\d) \| `(\w+)` \|", DOCUMENT, re.M))
    assert named == {str(int(level)): level.name.lower() for level in Level}
    topics = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.M))
    sources = "".join(path.read_text() for path in (ROOT / "smsgw" / "cli" / "check").glob("*.py"))
    assert topics == set(re.findall(r'Topic\("(\w+)"\)', sources))


def test_every_option_is_named() -> None:
    for name, command in main.commands.items():
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert f"{option}" in DOCUMENT, (name, option)


def written(name: str) -> dict[str, tuple[list[str], set[str]]]:
    """The arguments and options of each command of a plugin, as its table has them."""
    rows = re.findall(rf"^\| `smsgw {name} (\w+)(.*?)` \|(.*)$", DOCUMENT, re.M)
    assert len(rows) == DOCUMENT.count(f"| `smsgw {name} ")
    options = r"--\w+"
    return {
        command: (re.sub(rf"{options} \S+", "", usage).split(), set(re.findall(options, usage + meaning)))
        for command, usage, meaning in rows
    }


def test_the_tables_have_all_commands_of_plugins() -> None:
    context = click.Context(main)
    groups = {name: main.get_command(context, name) for name in SHIPPED}
    groups |= {name: command for name, command in main.commands.items() if isinstance(command, click.Group)}
    named = set(re.findall(r"^## `smsgw (\w+) …`$", DOCUMENT, re.M))
    assert named == {name for name, group in groups.items() if group}
    assert set(re.findall(r"^\| `smsgw (\w+) ", DOCUMENT, re.M)) == named
    for name in named:
        group = groups[name]
        assert isinstance(group, click.Group)
        found = {
            command.name: (
                command.collect_usage_pieces(context)[1:],  # but for "[OPTIONS]"
                {option for each in command.params if isinstance(each, click.Option) for option in each.opts},
            )
            for command in group.commands.values()
        }
        assert found == written(name)
