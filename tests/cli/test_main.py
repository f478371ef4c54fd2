"""The command as a whole: how it starts, what it says of wrong files, what a terminal gets of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from tests import programs
from tests.cli.conftest import SMSGW, Ini, executable, smsgw
from tests.conftest import eventually

Install = Callable[..., None]
COMMANDS = ["check", "journal", "login", "plugins", "preview", "send"]


def test_help() -> None:
    told = executable("--help")
    assert (told.status, told.err) == (0, "")
    assert set(COMMANDS) <= set(re.findall(r"^  ([a-z]+) ", told.out, re.M))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each(command: str) -> None:
    told = executable(command, "--help")
    assert (told.status, told.err) == (0, "")
    assert told.out.startswith(f"Usage: smsgw {command} ")


def test_version() -> None:
    """That it names the commit, ``test_packaging`` shows."""
    assert re.fullmatch(r"smsgw \d+\.\d+\.\d+(\.dev\d+)?(\+[a-z0-9.]+)?\n", executable("--version").out)


def test_a_command_of_a_plugin_that_lacks_something(distribution: Install) -> None:
    """It is not there, and the reason is told; a name of nothing, or of a plugin without commands, is a wrong word."""
    distribution("acme", "import acme_needs_this\n\n\nclass Acme:\n    commands = acme_needs_this\n", acme="Acme")
    told = smsgw("acme", "list")
    assert told.status == 3
    assert "acme_needs_this" in told.err
    assert "acme" not in smsgw("--help").out
    for name in ("acne", "allow"):
        told = smsgw(name, "list")
        assert told.status == 2
        assert f"No such command '{name}'" in told.err


WRONG: list[tuple[str, bytes | None, str]] = [
    ("nothing", None, "there is no file"),
    ("empty", b"", "main"),
    ("no section", b"smsgw.spool = /x\n", "line 1 is neither"),
    ("nonsense", b"[app:main]\nGehe!m\n", "line 2 is neither"),
    ("no application", b"[app:other]\nuse = egg:smsgw\n", "main"),
    ("another application", b"[app:main]\nuse = egg:no_such_thing\n", "no_such_thing"),
    ("not UTF-8", b"[app:main]\nuse = egg:smsgw\n# caf\xe9\n", "is not UTF-8, at byte 32"),
    ("per cent", b"[app:main]\nuse = egg:smsgw\nsmsgw.store = postgresql://u:Gehe!m%x\n", "smsgw.store has a % in it"),
    ("twice", b"[app:main]\nuse = egg:smsgw\nsmsgw.spool = a\nsmsgw.spool = b\n", "smsgw.spool"),
    ("default", b"[DEFAULT]\nsmsgw.spool = /x\n[app:main]\nuse = egg:smsgw\nsmsgw.spool = /x\n", "[DEFAULT]"),
    ("unknown", b"[app:main]\nuse = egg:smsgw\nsmsgw.spol = /x\n", "did you mean 'smsgw.spool'?"),
    ("escape", b"[app:main]\nuse = egg:smsgw\nsmsgw.spool = /x\nsmsgw.fsync = \x1b[2J\n", r"\x1b[2J"),
    ("nul", b"[app:main]\nuse = egg:smsgw\nsmsgw.spool = /x\x00\n", "NUL"),
]


@pytest.mark.parametrize(("content", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["login", "lvv"],
        ["send", "--user", "lvv", "--to", "112", "Hi"],
        ["preview", "--ini", "--user", "lvv", "Hi"],
    ],
    ids=lambda command: command[0],
)
def test_a_wrong_ini_file(tmp_path: Path, content: bytes | None, said: str, command: list[str]) -> None:
    """One sentence, exit status 3, no secret, nothing that a terminal obeys."""
    path = tmp_path / "gateway.ini"
    if content is not None:
        path.write_bytes(content)
    place = command.index("--ini") + 1 if "--ini" in command else 1
    told = smsgw(*command[:place], path, *command[place:], stdin="SecretPAss")
    assert told.status == 3
    printed = told.out + told.err
    assert said in printed
    assert "Traceback" not in printed
    assert "Gehe!m" not in printed
    assert all(character.isprintable() or character == "\n" for character in printed)
    if command[0] != "check":
        assert len(told.err.splitlines()) == 1
        assert told.err.endswith((".\n", "?\n"))


def test_a_folder_and_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert smsgw("check", tmp_path).out.splitlines()[1] == (
        f"stops    settings: {tmp_path} is a folder; name the gateway's ini file."
    )
    told = smsgw("login", tmp_path, "lvv")
    assert (told.status, told.err) == (3, f"{tmp_path} is a folder; name the gateway's ini file.\n")
    loop = tmp_path / "loop.ini"
    loop.symlink_to(loop)
    told = smsgw("login", loop, "lvv")
    assert told.status == 3
    assert "Too many levels of symbolic links" in told.err


def test_what_stops_the_start_stops_a_command(ini: Ini) -> None:
    path = ini({"smsgw.plugins": "htpaswd allow"})
    for arguments in (["login", path, "lvv"], ["send", path, "--user", "lvv", "--to", "112", "Hi"]):
        told = executable(*arguments)
        assert told.status == 3
        assert told.err == (
            "smsgw.plugins names 'htpaswd', and no installed distribution has such a plugin; did you mean 'htpasswd'?\n"
        )
    told = executable("login", ini({"pyramid.includes": "no_such"}), "lvv")
    assert (told.status, len(told.err.splitlines())) == (3, 1)


def test_warnings_of_plugins_are_told_once_and_plainly(ini: Ini, password_file: Path) -> None:
    password_file.write_text("a\x1b[2J:plain\n")
    told = executable("login", ini(), "lvv", stdin=b"x")
    assert told.err.splitlines()[0].startswith(f"warning: {password_file}: 'a\\x1b[2J' has no password hash")
    assert "\x1b" not in told.err


def test_a_broken_pipe() -> None:
    command = f"{SMSGW} plugins core 2>&1 | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert ended.stdout in ("0\n", "1\n")
    assert ended.stderr == ""
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([SMSGW, "plugins"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert "Traceback" not in process.communicate(timeout=30)[1]


def test_control_c(ini: Ini) -> None:
    process = subprocess.Popen(
        ["env", "--default-signal=INT", SMSGW, "login", str(ini()), "lvv"],  # which shells ignore for what runs behind
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"Secr")
    process.stdin.flush()
    wchan = Path(f"/proc/{process.pid}/wchan")
    # It has begun to read the password, and waits for the rest: before, it may wait for other pipes.
    eventually(lambda: _unread(process.stdin) == 0 and "pipe" in wchan.read_text(), 60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert err.strip() == b"Aborted!"


def _unread(pipe: IO[bytes] | None) -> int:
    """How many bytes in a pipe nobody has taken yet."""
    assert pipe is not None
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


def test_a_terminal_of_another_alphabet() -> None:
    for encoding, shown in (("latin-1", "\\u0416"), ("ascii", "Ж")):  # where Click takes UTF-8 for what is meant
        told = executable("preview", "Жук", env={**os.environ, "PYTHONIOENCODING": encoding})
        assert (told.status, told.err) == (0, "")
        assert shown in told.out


def on_a_terminal(*arguments: str, columns: int = 60, env: dict[str, str] | None = None) -> str:
    here, there = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **(env or {})}
    process = subprocess.Popen([SMSGW, *arguments], stdout=there, stderr=there, stdin=there, env=environment)
    os.close(there)
    seen = b""
    while True:
        try:
            seen += os.read(here, 65536)
        except OSError:  # the other end is closed
            break
    os.close(here)
    assert process.wait(20) == 0
    return seen.decode()


def test_tables() -> None:
    """On a terminal they fit it, and have colours unless there shall be none; elsewhere each row is one line."""
    seen = on_a_terminal("plugins", "core")
    assert "\x1b[" in seen
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in seen.splitlines()) <= 60
    assert "smsgw.guesses_per_address" in seen
    plain = on_a_terminal("plugins", "core", env={"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[\d;]*3\d", plain)
    piped = executable("plugins", "core", env={**os.environ, "COLUMNS": "40"}).out
    assert "\x1b" not in piped
    assert len([line for line in piped.splitlines() if line.startswith("smsgw.")]) == len(piped.splitlines()) - 3
    assert all(line == line.rstrip() for line in piped.splitlines())


# Completion


def complete(*words: str, cwd: Path | None = None) -> list[str]:
    """What bash would be offered for the last of the words."""
    env = {**os.environ, "_SMSGW_COMPLETE": "bash_complete", "COMP_CWORD": str(len(words))}
    env["COMP_WORDS"] = " ".join(["smsgw", *words])
    ended = programs.run([SMSGW], env=env, cwd=cwd)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_completion() -> None:
    assert complete("pl") == ["plain,plugins"]
    assert complete("plugins", "htp") == ["plain,htpasswd"]
    assert complete("plugins", "co") == ["plain,core"]
    assert complete("check", "pro") == ["file,pro"]
    assert complete("login", "pro") == ["file,pro"]
    assert complete("preview", "--ini", "pro") == ["file,pro"]
    assert complete("check", "--ver") == ["plain,--verbose"]


def test_completion_in_bash(ini: Ini) -> None:
    """As docs/command-line.md says, in a real bash."""
    if shutil.which("bash") is None:
        pytest.skip("bash")
    ini()
    script = f"""
        PATH={SMSGW.parent}:$PATH
        eval "$(_SMSGW_COMPLETE=bash_source smsgw)"
        COMP_WORDS=(smsgw plugins htp) COMP_CWORD=2
        _smsgw_completion smsgw htp plugins
        echo "${{COMPREPLY[@]}}"
    """
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("htpasswd\n", "")


def test_plugins_bring_commands(distribution: Callable[..., None]) -> None:
    source = """
import click
from smsgw.cli import Installation, installation


@click.group()
def commands():
    "Look after robots."


@commands.command()
@installation
def count(installation: Installation):
    click.echo(f"{installation.settings_of('robot', Robot.Settings())['most']} in {installation.layout.outgoing}")


import colander


class Robot:
    class Settings(colander.MappingSchema):
        most = colander.SchemaNode(colander.Integer(), missing=3)

    commands = commands
"""
    distribution("acme", source, robot="Robot")
    assert re.search(r"^  robot +Look after robots\.$", smsgw("--help").out, re.M)


def test_a_plugin_s_command(distribution: Callable[..., None], ini: Ini) -> None:
    test_plugins_bring_commands(distribution)
    path = ini()
    assert smsgw("robot", "count", path).out == f"3 in {path.parent}/spool/outgoing\n"
    path = ini({"smsgw.robot.most": "many"})
    told = smsgw("robot", "count", path)
    assert (told.status, told.err) == (3, 'smsgw.robot.most: "many" is not a number.\n')
