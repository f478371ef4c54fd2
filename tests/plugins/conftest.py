"""Users of groups: whoever asks is believed, and names the groups in place of a password."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials, Identity
from smsgw.testing import OUTGOING, MakeGateway
from tests.conftest import FULL, new_database

Send = Callable[..., Any]


class Trusting:
    """An authentication plugin."""

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity:
        return Identity(credentials.userid, frozenset(credentials.secret.split()))


@pytest.fixture
def make_trusting(make_gateway: MakeGateway) -> Callable[..., Send]:
    """Make a gateway with plugins and settings; what is returned sends for ``"user @group …"``, and gives the reply."""

    def make(plugins: str, settings: Mapping[str, str | None], **classes: type) -> Send:
        names = {"smsgw.plugins": f"trusting allow {plugins}", "smsgw.htpasswd.path": None}
        gateway = make_gateway({**names, **settings}, trusting=Trusting, **classes)

        def send(who: str = "lvv", *, status: int = 201, **fields: Any) -> Any:
            user, *groups = who.replace("@", "").split()
            gateway.app.authorization = ("Basic", (user, " ".join(groups) or "-"))
            body = {"mobiles": ["79680000000"], "text": "Hi, Jack!"} | fields
            return gateway.app.post_json(OUTGOING, body, status=status).json

        return send

    return make


@pytest.fixture(params=["sqlite", "postgresql"] if FULL else ["sqlite"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The store's own tests use both kinds of databases; those of plugins do so in the full suite."""
    return new_database(request, tmp_path)
