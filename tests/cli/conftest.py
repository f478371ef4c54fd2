"""The command ``smsgw``: in this process, and as an operator has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smsgw.cli import main
from tests import programs
from tests.server import free_port

SMSGW = Path(sys.executable).with_name("smsgw")
WAITRESS = {"use": "egg:waitress#main", "max_request_body_size": "8388608"}

Ini = Callable[..., Path]


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


def smsgw(*arguments: object, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> Ended:
    """Run it in this process."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin, env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def executable(*arguments: object, stdin: bytes = b"", enter: Sequence[str | Path] = (), **options: Any) -> Ended:
    """Run the real one; ``enter`` is a command that its command line is appended to, ``options`` are subprocess's."""
    command = [*map(str, enter), str(SMSGW), *map(str, arguments)]
    if not enter and not options:
        ran = programs.run(command, input=stdin)
        return Ended(ran.returncode, ran.stdout, ran.stderr)
    ended = subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False, **options)
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def as_user(name: str) -> list[str]:
    """What a command line is appended to that shall run as that user, who may read everything: also this Python."""
    if os.geteuid():
        pytest.skip("root, who can be others")
    reading = "+dac_read_search"
    return ["setpriv", "--reuid", name, "--clear-groups", "--inh-caps", reading, "--ambient-caps", reading, "--"]


@pytest.fixture
def ini(tmp_path: Path, base_settings: dict[str, str], password_file: Path) -> Ini:
    """An ini file that ``check`` has nothing to say about, with changes to its settings; ``None`` takes one away."""
    password_file.chmod(0o600)

    def write(
        changes: Mapping[str, str | None] | None = None,
        waitress: Mapping[str, str | None] | None = None,
        name: str = "gateway.ini",
    ) -> Path:
        app = {"use": "egg:smsgw", "smsgw.fsync": "true"}
        server = WAITRESS | {"listen": f"127.0.0.1:{free_port()}"}
        sections = {
            "app:main": base_settings | app | dict(changes or {}),
            "server:main": server | dict(waitress or {}),
        }
        lines = []
        for section, values in sections.items():
            lines.append(f"[{section}]")
            for key, value in values.items():
                if value is not None:
                    lines.append(f"{key} = {value}".replace("%", "%%").replace("\n", "\n    "))
        path = tmp_path / name
        path.write_text("\n".join([*lines, ""]))
        return path

    return write
