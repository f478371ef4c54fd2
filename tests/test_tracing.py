"""The id of each request, and what the log says of requests: refusals, lockouts, failures, the start."""

from __future__ import annotations

import io
import logging
import re
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.response import Response

from smsgw.logs import Formatter
from smsgw.testing import MakeGateway, basic
from tests.conftest import Gateway, eventually, make_spool

V1 = "/api/v1.0/sms/outgoing"
MESSAGES = "/api/v2/messages"
MADE = re.compile("[0-9a-f]{16}")
GIVEN = "7f3c-order.17:0001"


@pytest.fixture
def lines() -> Iterator[Any]:
    """The log as production.ini writes it: a function that returns its lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter("%(levelname)s [%(request_id)s]: %(message)s"))
    logger = logging.getLogger("smsgw")
    before, logger.level = logger.level, logging.INFO
    logger.addHandler(handler)
    yield lambda: stream.getvalue().splitlines()
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.mark.shared
def test_every_reply_has_an_id_of_its_own(gateway: Gateway) -> None:
    replies = [
        gateway.get("/api/v2/me"),
        gateway.get("/api/v1.0/monitoring", user=None),
        gateway.get(MESSAGES, user=None, status=401),
        gateway.get(f"{MESSAGES}/bogus", status=404),
        gateway.get("/api/v2/%ff", status=404),
        gateway.get("/bogus", user=None, status=401),
        gateway.send(mobiles=["12"], status=400),
        gateway.call("PUT", MESSAGES, status=405),
        gateway.call("POST_JSON", MESSAGES, {}, status=400),
    ]
    ids = [reply.headers["X-Request-ID"] for reply in replies]
    assert len(set(ids)) == len(ids)
    assert all(map(MADE.fullmatch, ids))


def test_what_no_route_sees_has_an_id_too(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.max_body": "100"})
    reply = gateway.call("POST_JSON", MESSAGES, {"text": "a" * 100}, status=413)
    assert reply.json["request_id"] == reply.headers["X-Request-ID"]


def test_a_trusted_proxy_may_give_it(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.trusted_proxies": "10.1.1.0/24"})

    def shown(given: str, address: str) -> str:
        reply = gateway.get("/api/v2/me", headers={"X-Request-ID": given}, extra_environ={"REMOTE_ADDR": address})
        return str(reply.headers["X-Request-ID"])

    assert shown(GIVEN, "10.1.1.9") == GIVEN
    assert shown("f" * 64, "10.1.1.9") == "f" * 64
    assert MADE.fullmatch(shown(GIVEN, "192.0.2.1"))
    for given in ("", "short", "f" * 65, "with spaces in it", "<script>alert(1)", 'quoted"quoted', "ÄÖÜÄÖÜÄÖÜ"):
        assert MADE.fullmatch(shown(given.encode().decode("latin-1"), "10.1.1.9"))


@pytest.mark.shared
def test_problem_details_have_it_and_v1_has_it_in_the_header_alone(gateway: Gateway) -> None:
    reply = gateway.call("POST_JSON", MESSAGES, {"to": ["12"], "text": "Hi"}, status=422)
    assert reply.json["request_id"] == reply.headers["X-Request-ID"]
    assert gateway.send(mobiles=["12"], status=400).json.keys() == {"error", "errors"}


def test_a_repeated_refusal_is_the_same_to_the_byte(gateway: Gateway) -> None:
    body, key = {"to": ["12"], "text": "Hi"}, {"Idempotency-Key": "order-17-paid"}
    first, second = (gateway.call("POST_JSON", MESSAGES, body, headers=key, status=422) for _ in range(2))
    assert first.body == second.body
    assert first.json["request_id"] == first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


def test_the_log_has_the_id_while_a_request_is_served(gateway: Gateway, lines: Any) -> None:
    gateway.users["lvv"] = "wrong"
    reply = gateway.get("/api/v2/me", extra_environ={"REMOTE_ADDR": "192.0.2.1"}, status=401)
    logging.getLogger("smsgw").warning("afterwards")
    assert lines() == [
        f"WARNING [{reply.headers['X-Request-ID']}]: wrong credentials of 'lvv' from 192.0.2.1",
        "WARNING [-]: afterwards",
    ]


def test_refusals_of_users_are_logged(make_gateway: MakeGateway, lines: Any) -> None:
    gateway = make_gateway(
        {
            "smsgw.plugins": "htpasswd allow whitelist quota",
            "smsgw.whitelist.numbers": "\n*: 7968*",
            "smsgw.quota.limits": "\n*: 2/month",
        }
    )
    environ = {"REMOTE_ADDR": "192.0.2.1"}

    def refused(to: list[str], v1: int, v2: int) -> None:
        body = {"mobiles": to, "text": "geheim"}
        gateway.call("POST_JSON", V1, body, extra_environ=environ, status=v1)
        gateway.call("POST_JSON", MESSAGES, {"to": to, "text": "geheim"}, extra_environ=environ, status=v2)

    refused(["79160000000"], 403, 403)
    refused(["12"], 400, 422)  # the request is at fault
    refused(["79680000000", "79680000001", "79680000002"], 429, 422)
    gateway.call("POST_JSON", MESSAGES, {"to": ["79160000000"], "text": "Hi"}, user=None, status=401)
    found = [re.sub(r"^WARNING \[[0-9a-f]{16}\]: ", "", line) for line in lines() if line.startswith("WARNING")]
    never = "This request needs 3 and can never pass the limit of 2"
    beginnings = [
        f"'POST {V1}' of 'lvv' from 192.0.2.1 is refused (403): 'You may not send to any of these numbers'",
        f"'POST {MESSAGES}' of 'lvv' from 192.0.2.1 is refused (403): 'None of the messages can be sent'",
        f"'POST {V1}' of 'lvv' from 192.0.2.1 is refused (429): '{never}",
        f"'POST {MESSAGES}' of 'lvv' from 192.0.2.1 is refused (422): '{never}",
    ]
    assert len(found) == len(beginnings)
    assert all(line.startswith(beginning) for line, beginning in zip(found, beginnings, strict=True))
    assert not any("geheim" in line or "7916" in line for line in lines())


def test_a_refusal_by_a_plugin_s_own_view_is_logged(make_gateway: MakeGateway, lines: Any) -> None:
    class Own:
        def includeme(self, config: Configurator) -> None:
            for name, body in (("list", b"[]"), ("text", b"no\nway")):
                config.add_route(name, f"/{name}")
                config.add_view(lambda request, body=body: Response(body, status=403), route_name=name)

    gateway = make_gateway({"smsgw.plugins": "htpasswd allow own"}, own=Own)
    for name in ("list", "text"):
        gateway.get(f"/{name}", status=403)
    assert [line.partition("]: ")[2] for line in lines() if "refused" in line] == [
        f"'GET /{name}' of 'lvv' from  is refused (403): '403 Forbidden'" for name in ("list", "text")
    ]


def test_a_lockout_is_logged_once(make_gateway: MakeGateway, lines: Any) -> None:
    gateway = make_gateway({"smsgw.guesses_per_user": "3"})
    gateway.users["lvv"] = "wrong"
    for status in (401, 401, 401, 429, 429):
        gateway.get("/api/v2/me", extra_environ={"REMOTE_ADDR": "192.0.2.1"}, status=status)
    assert len([line for line in lines() if "wrong credentials of 'lvv' from 192.0.2.1" in line]) == 3
    (lockout,) = (line for line in lines() if "locked out" in line)
    assert re.search(r"'lvv' at 192.0.2.1 is locked out for [0-9]+ seconds: too many wrong passwords", lockout)


def test_a_token_that_is_shown_as_a_userid_is_not_logged(make_gateway: MakeGateway, lines: Any) -> None:
    gateway = make_gateway({"smsgw.guesses_per_user": "1"})
    gateway.get("/api/v2/me", user=None, headers={"Authorization": basic("geheim", "")}, status=401)
    assert any("locked out" in line for line in lines())
    assert "geheim" not in "".join(lines())


def test_a_lockout_of_an_address_is_logged_once(make_gateway: MakeGateway, lines: Any) -> None:
    gateway = make_gateway({"smsgw.guesses_per_address": "2"})
    for token, status in (("a", 401), ("b", 401), ("c", 429)):
        headers = {"Authorization": f"Bearer geheim-{token}"}
        environ = {"REMOTE_ADDR": "192.0.2.1"}
        gateway.get("/api/v2/me", user=None, headers=headers, extra_environ=environ, status=status)
    (lockout,) = (line for line in lines() if "locked out" in line)
    assert "everybody at 192.0.2.1 is locked out for" in lockout
    assert "geheim" not in "".join(lines())


def test_a_failed_message_is_logged_with_its_reason(gateway: Gateway, lines: Any) -> None:
    eventually(lambda: gateway.application.journal.standing().is_whole)
    reason = "+CMS ERROR: 38 (Network out of order)"
    gateway.put("failed", "m1", f"To: 79680000000\nFrom: lvv\nFail_reason: {reason}\n\ngeheim")
    gateway.put("failed", "m2", "To: 79680000000\nFrom: ops\n\ngeheim")
    expected = {
        f"WARNING [-]: the message 'm1' of 'lvv' failed: {reason!r}",
        "WARNING [-]: the message 'm2' of 'ops' failed: 'the modem did not say why'",
    }
    eventually(lambda: expected <= set(lines()))
    assert len([line for line in lines() if "failed" in line]) == 2
    assert not any("geheim" in line for line in lines())


def test_the_start_says_whether_smsd_runs(make_gateway: MakeGateway, tmp_path: Path, lines: Any) -> None:
    spool = make_spool(tmp_path / "there")
    folders = "".join(f"{kind} = {spool / kind}\n" for kind in ("outgoing", "checked", "incoming"))
    conf = tmp_path / "smsd.conf"
    conf.write_text(f"pidfile = {tmp_path / 'smsd.pid'}\n{folders}")
    settings = {"smsgw.spool": None, "smsgw.smsd_conf": str(conf)}
    make_gateway(settings)
    assert f"INFO [-]: smsd, of {conf}, does not run: messages wait for it" in lines()
    program = tmp_path / "smsd"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as smsd:
        try:
            (tmp_path / "smsd.pid").write_text(f"{smsd.pid}\n")
            eventually(lambda: Path(f"/proc/{smsd.pid}/comm").read_text() == "smsd\n")
            make_gateway(settings)
        finally:
            smsd.kill()
    assert any(
        re.search(rf"smsd, of {conf}, runs as \S+ with the groups? .+ \(process {smsd.pid}\)", line) for line in lines()
    )


def test_the_start_says_what_an_operator_wants_to_know(make_gateway: MakeGateway, lines: Any) -> None:
    gateway = make_gateway({"smsgw.store": "sqlite:////tmp/geheim"})
    found = "\n".join(lines())
    assert f"smsgw {metadata.version('smsgw')} serves the spool of {gateway.spool / 'outgoing'}" in found
    assert "plugins in order: htpasswd allow" in found
    assert f"journal: {gateway.application.journal.database.store.name}" in found
