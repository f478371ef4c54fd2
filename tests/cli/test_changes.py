"""The hook ``changed``: what commands change is told to plugins."""

from __future__ import annotations

import os
import pwd
from typing import ClassVar

import pytest

from smsgw.hookspecs import hookimpl
from smsgw.model import Change
from smsgw.testing import offered
from tests.cli.conftest import Ini, smsgw


class Noting:
    """Notes what it hears of, and fails as a test says."""

    heard: ClassVar[list[Change]] = []
    failure: Exception | None = None

    @hookimpl
    def changed(self, change: Change) -> None:
        self.heard.append(change)
        if self.failure is not None:
            raise self.failure


@pytest.mark.parametrize("failure", [None, RuntimeError("it has no paper")])
def test_plugins_hear_of_it(ini: Ini, failure: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails is named, and the change is made all the same."""
    monkeypatch.setattr(Noting, "failure", failure)
    monkeypatch.setattr(Noting, "heard", [])
    with offered(noting=Noting):
        path = ini({"smsgw.plugins": "token htpasswd allow noting"})
        made = smsgw("token", "create", "--user", "ops", path)
        said = "The plugin 'noting' has not noted this: it has no paper.\n"
        assert (made.status, said in made.err) == (0, failure is not None)
        (heard,) = Noting.heard
        assert (heard.action, heard.owner, len(heard.ids)) == ("change", "ops", 1)
        assert (heard.origin.via, heard.origin.account) == ("smsgw token create", pwd.getpwuid(os.getuid()).pw_name)
        assert smsgw("token", "revoke", heard.ids[0], path).status == 0
        assert (Noting.heard[1].action, Noting.heard[1].ids) == ("delete", heard.ids)
