"""The hooks ``signed_in`` and ``holds``: who has signed in, and whether what they showed is still good."""

from __future__ import annotations

from typing import Any

import pytest

from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials, Identity, Unavailable
from smsgw.testing import MakeGateway
from tests.conftest import OUTGOING, Gateway, basic

BODY = {"mobiles": ["79680000000"], "text": "Hi, Jack!"}


class Desk:
    """Its badges hold while they stand in ``good``; it hears of all sign-ins."""

    schemes = ("Bearer",)

    def __init__(self) -> None:
        self.good = {"badge:1"}
        self.heard: list[Identity] = []
        self.failure: Exception | None = None

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity | None:
        if credentials.scheme != "Bearer" or credentials.secret not in self.good:
            return None
        return Identity("ann", frozenset({"staff"}), credentials.secret)

    @hookimpl
    def holds(self, credential: str) -> Any:
        if self.failure:
            raise self.failure
        return credential in self.good if credential.startswith("badge:") else None

    @hookimpl
    def signed_in(self, identity: Identity) -> None:
        if identity.userid == "ops":
            raise ValueError("no")
        self.heard.append(identity)


class Odd:
    """Its answers are none."""

    @hookimpl
    def holds(self, credential: str) -> Any:
        return {"odd:1": 1, "odd:yes": "yes"}.get(credential)


@pytest.fixture
def gateway(make_gateway: MakeGateway) -> Gateway:
    return make_gateway({"smsgw.plugins": "odd desk htpasswd allow"}, odd=Odd, desk=Desk)


def test_each_request_that_is_authenticated_is_a_sign_in(gateway: Gateway) -> None:
    desk = gateway.plugin("desk")
    gateway.app.authorization = None

    def post(header: str | None, status: int) -> None:
        gateway.app.post_json(OUTGOING, BODY, headers={"Authorization": header} if header else {}, status=status)

    post("Bearer badge:1", 201)
    post(basic("lvv", "SecretPAss"), 201)
    gateway.app.get("/api/v2/messages/none", headers={"Authorization": basic("lvv", "SecretPAss")}, status=404)
    expected = [Identity("ann", frozenset({"staff"}), "badge:1"), *[Identity("lvv", credential="htpasswd:lvv")] * 2]
    assert desk.heard == expected
    post(None, 401)
    post("Bearer badge:2", 401)
    post(basic("lvv", "wrong"), 401)
    gateway.app.get("/api/v1.0/monitoring", status="*")
    assert desk.heard == expected


def test_one_that_raises_ends_the_request(gateway: Gateway) -> None:
    gateway.send(user="ops", status=500)
    assert gateway.files() == {}


def test_a_credential_holds_where_its_plugin_says_so(gateway: Gateway) -> None:
    holds, desk = gateway.application.holds, gateway.plugin("desk")
    assert holds("badge:1") is True
    for credential in ("badge:2", "token:1", "", "odd:1", "odd:yes"):
        assert holds(credential) is False
    desk.good.clear()
    assert holds("badge:1") is False


@pytest.mark.parametrize("failure", [Unavailable("closed"), ValueError("a mistake")])
def test_where_it_cannot_be_told(gateway: Gateway, failure: Exception) -> None:
    gateway.plugin("desk").failure = failure
    with pytest.raises(Unavailable):
        gateway.application.holds("badge:1")
