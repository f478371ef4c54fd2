"""What all tests share: a gateway on a spool of its own, spoken to through HTTP."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from webtest import TestApp

from smsgw import main
from smsgw.spool.layout import KINDS

settings.register_profile("smsgw", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("smsgw")

OUTGOING = "/api/v1.0/sms/outgoing"
USERS = {"lvv": "SecretPAss", "ops": "Alarm!ng", "root": "Adm1nist"}


def eventually(look: Callable[[], Any], seconds: float = 10) -> Any:
    """What ``look`` finds, as soon as it finds something."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)
    return found


@dataclass
class Gateway:
    """An application, its spool, and shorthands for what clients do."""

    app: TestApp
    spool: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.spool / "outgoing" / ".smsgw"

    def files(self, kind: str = "outgoing") -> dict[str, bytes]:
        """The messages in a folder: what smsd would see there."""
        folder = self.spool / kind
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}

    def send(self, body: Any = None, *, user: str = "lvv", status: int = 201, **fields: Any) -> Any:
        """POST a send; ``fields`` go over a body that would be sent as it stands."""
        if body is None:
            body = {"mobiles": ["79680000000"], "text": "Hi, Jack!"} | fields
        return self.call("POST_JSON", OUTGOING, body, user=user, status=status)

    def call(self, method: str, url: str, *args: Any, user: str | None = "lvv", status: int = 200, **kw: Any) -> Any:
        self.app.authorization = ("Basic", (user, USERS[user])) if user else None
        return getattr(self.app, method.lower())(url, *args, status=status, **kw)

    def get(self, url: str, **kw: Any) -> Any:
        return self.call("GET", url, **kw)

    def delete(self, url: str, **kw: Any) -> Any:
        return self.call("DELETE", url, **kw)

    def put(self, kind: str, name: str, content: bytes | str) -> Path:
        """A file that another program, or smsd, left in a folder."""
        path = self.spool / kind / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


def sha(word: str) -> str:
    """That password as ``htpasswd -s`` would write it."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(word.encode()).digest()).decode()


def basic(userid: str, secret: str) -> str:
    """An ``Authorization`` header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{userid}:{secret}".encode()).decode()


def make_spool(folder: Path) -> Path:
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    return folder


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """Apache's cheapest hashes: what is not about passwords need not wait for them."""
    path = tmp_path / "htpasswd"
    path.write_text("".join(f"{user}:{sha(word)}\n" for user, word in USERS.items()))
    return path


@pytest.fixture
def base_settings(tmp_path: Path, password_file: Path) -> dict[str, str]:
    """A gateway with users and the permission to send; ``root`` is an administrator."""
    return {
        "smsgw.spool": str(make_spool(tmp_path / "spool")),
        "smsgw.plugins": "htpasswd allow",
        "smsgw.htpasswd.path": str(password_file),
        "smsgw.allow.admins": "root",
        "smsgw.fsync": "false",
    }


@pytest.fixture
def make_gateway(base_settings: dict[str, str]) -> Iterator[Callable[..., Gateway]]:
    """Make a gateway of ``base_settings``, and those given over them; ``None`` takes one away."""
    routers = []

    def make(changes: dict[str, str | None] | None = None) -> Gateway:
        merged = {key: value for key, value in (base_settings | (changes or {})).items() if value is not None}
        router = main({}, **merged)
        routers.append(router)
        return Gateway(TestApp(router), Path(merged.get("smsgw.spool", base_settings["smsgw.spool"])), merged)

    yield make
    for router in routers:
        router.registry.owner.stop()


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    return make_gateway()


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install an organisation's distribution: a module, and the plugins in it by name and class."""
    modules: list[str] = []

    def install(name: str, source: str, **plugins: str) -> None:
        folder = tmp_path / "site" / name
        metadata = folder / f"{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        entries = "".join(f"{plugin} = {name}:{cls}\n" for plugin, cls in plugins.items())
        (metadata / "entry_points.txt").write_text(f"[smsgw.plugins]\n{entries}")
        (folder / f"{name}.py").write_text(source)
        modules.append(name)
        monkeypatch.syspath_prepend(folder)

    yield install
    for name in modules:
        sys.modules.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where the full suite is run, nothing may be missing: a skip is a failure there."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which the full suite forbids: {report.longrepr}"
    return report
