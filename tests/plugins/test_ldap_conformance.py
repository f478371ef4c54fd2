"""``ldap`` stands what every authentication plugin must, over both ways to find a user."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from smsgw.testing import DelayConformance, OutageConformance
from tests import slapd
from tests.slapd import GROUPS, SERVICE_PASSWORD, Slapd, group, person

pytestmark = pytest.mark.skipif(slapd.missing() is not None, reason=f"{slapd.missing()} is not installed")

USERS = {"lvv": "SecretPAss", "ops.7": "Alarm!ng"}
SPARE = {
    "smsgw.ldap.cache_seconds": "60",
    "smsgw.guesses_per_user": "0",
    "smsgw.guesses_per_address": "0",
}


class TestBySearch(OutageConformance, DelayConformance):
    plugin = "ldap"
    patience = 5.0

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Slapd]:
        with Slapd(tmp_path, *(person(*user) for user in USERS.items()), group("alarms", *USERS)) as server:
            yield server

    @pytest.fixture
    def timeout(self, request: pytest.FixtureRequest) -> Mapping[str, str]:
        """Short where it is waited for, and long where slapd answers, or is gone: a busy machine delays it."""
        return {"smsgw.ldap.timeout": "0.5" if "slow" in request.fixturenames else "30"}

    @pytest.fixture
    def settings(self, server: Slapd, timeout: Mapping[str, str]) -> Mapping[str, str]:
        return server.by_search | SPARE | timeout | {"smsgw.ldap.group_base": GROUPS}

    @pytest.fixture
    def users(self) -> Mapping[str, str]:
        return USERS

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        return [SERVICE_PASSWORD]

    @pytest.fixture
    def broken(self, server: Slapd) -> Callable[[], AbstractContextManager[None]]:
        @contextlib.contextmanager
        def killed() -> Iterator[None]:
            server.kill()
            yield
            server.start()

        return killed

    @pytest.fixture
    def slow(self, server: Slapd) -> Callable[[], AbstractContextManager[None]]:
        @contextlib.contextmanager
        def paused() -> Iterator[None]:
            server.pause()
            yield
            server.resume()

        return paused


class TestByTemplate(TestBySearch):
    @pytest.fixture
    def settings(self, server: Slapd, timeout: Mapping[str, str]) -> Mapping[str, str]:
        return server.by_template | SPARE | timeout
