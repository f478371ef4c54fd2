"""What the kit demands of an organisation's plugins, the shipped ones stand too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyramid.security import Allowed, Denied

from smsgw.model import Identity, Options
from smsgw.testing import (
    USERS,
    AuthenticationConformance,
    OutageConformance,
    PolicyConformance,
    TransformConformance,
    message,
    stored,
)
from smsgw.text import measure
from smsgw_plugins.hours import DAYS
from tests.conftest import sha

OPS = Identity("ops", frozenset({"alarms"}))


class TestUsers(AuthenticationConformance):
    """The kit's own."""

    plugin = "users"

    @pytest.fixture
    def users(self) -> Mapping[str, str]:
        return USERS


class TestHtpasswd(OutageConformance):
    plugin = "htpasswd"
    test_it_starts_while_the_backend_is_down = None  # its path is a setting, and a wrong one is told at the start

    @pytest.fixture
    def settings(self, password_file: Path) -> Mapping[str, str]:
        password_file.write_text("".join(f"{user}:{sha(word)}\n" for user, word in USERS.items()))
        return {"smsgw.htpasswd.path": str(password_file)}

    @pytest.fixture
    def users(self) -> Mapping[str, str]:
        return USERS

    @pytest.fixture
    def broken(self, password_file: Path) -> object:
        @contextlib.contextmanager
        def away() -> Iterator[None]:
            kept = password_file.rename(password_file.with_name("away"))
            yield
            kept.rename(password_file)

        return away


class TestAllow(PolicyConformance):
    plugin = "allow"

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        return {"smsgw.allow.admins": "root @alarms"}

    @pytest.fixture
    def answers(self) -> Sequence[object]:
        lvv, root = Identity("lvv"), Identity("root")
        return [
            (Allowed, lvv, "send", message()),
            (Allowed, lvv, "read", stored(owner="lvv")),
            (None, lvv, "read", stored(owner="ops")),
            (None, lvv, "read-all", None),
            (None, lvv, "delete", stored(owner="lvv")),
            (Allowed, OPS, "delete", stored(owner="lvv")),
            (Allowed, root, "read-all", None),
            (None, lvv, "metrics", None),
            (Allowed, root, "metrics", None),
        ]


class TestWhitelist(PolicyConformance):
    plugin = "whitelist"

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        return {"smsgw.whitelist.numbers": "\n lvv: 911 7916*\n @alarms: 7968*"}

    @pytest.fixture
    def answers(self) -> Sequence[object]:
        lvv = Identity("lvv")
        return [
            (None, lvv, "send", message("911")),
            (Denied, lvv, "send", message("79680000000")),
            (None, lvv, "send", message("79160000000")),
            (None, OPS, "send", message("79680000000")),
            (Denied, OPS, "send", message("79160000000")),
            (None, Identity("root"), "send", message("12025550123")),
            (None, lvv, "list", None),
        ]


class TestBlacklist(PolicyConformance):
    plugin = "blacklist"

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        return {"smsgw.blacklist.numbers": "\n *: premium-rate 7999*\n lvv: KZ\n @alarms: short"}

    @pytest.fixture
    def answers(self) -> Sequence[object]:
        lvv = Identity("lvv")
        return [
            (Denied, lvv, "send", message("79990000000")),
            (Denied, lvv, "send", message("78091234567")),
            (Denied, lvv, "send", message("77010000000")),
            (None, lvv, "send", message("112")),
            (None, lvv, "send", message("79160000000")),
            (Denied, OPS, "send", message("112")),
            (None, OPS, "send", message("77010000000")),
            (Denied, OPS, "send", message("79990000000")),
            (None, lvv, "list", None),
        ]


class TestHours(PolicyConformance):
    plugin = "hours"

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        day = DAYS[(datetime.now(UTC).weekday() + 3) % 7]
        lines = f"\n lvv: {day} 00:00-24:00\n @alarms: Mon-Sun 00:00-24:00\n *: {day} 08:00-18:00"
        return {"smsgw.hours.times": lines, "smsgw.hours.timezone": "UTC", "smsgw.hours.urgent_always": "true"}

    @pytest.fixture
    def answers(self) -> Sequence[object]:
        lvv, urgent = Identity("lvv"), Options(high_priority=True)
        return [
            (Denied, lvv, "send", message()),
            (None, lvv, "send", message(options=urgent)),
            (None, OPS, "send", message()),
            (Denied, Identity("root"), "send", message()),
            (None, lvv, "list", None),
        ]


class TestTransliterate(TransformConformance):
    plugin = "transliterate"

    def most_parts(self, text: str) -> int:
        return measure(text.replace("…", "...")).parts


class TestTransliterateEverything(TestTransliterate):
    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        return {"smsgw.transliterate.everything": "true"}


class TestSignature(TransformConformance):
    plugin = "signature"

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        return {"smsgw.signature.text": "ACME", "smsgw.signature.lines": "\n @alarms: Alarms\n root: — root"}

    def most_parts(self, text: str) -> int:
        return measure(f"{text}\n— root").parts


class TestTemplate(TransformConformance):
    plugin = "template"

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        return {"smsgw.template.texts": "alarm: {host} is {state}", "smsgw.template.only": "root"}


class TestLimit(TransformConformance):
    plugin = "limit"

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        return {"smsgw.limit.parts": "2", "smsgw.limit.lines": "\n @alarms: 1\n root: 3"}

    def most_parts(self, text: str) -> int:
        return min(measure(text).parts, 3)
