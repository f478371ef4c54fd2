"""What docs/webhooks.md says is what happens."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from smsgw import cli
from smsgw.testing import MakeGateway
from smsgw_plugins.webhooks import Webhooks, dispatcher, outbox, post, receivers
from smsgw_plugins.webhooks.events import TYPES
from tests.conftest import Gateway, eventually
from tests.receiver import Receiver
from tests.test_documentation import ROOT, ask, block, blocks, first_cells

TEXT = (ROOT / "docs" / "webhooks.md").read_text()
SETTINGS: dict[str, str | None] = {
    "smsgw.plugins": "htpasswd allow webhooks",
    "smsgw.webhooks.allow_private": "true",
}


def listening(gateway: Gateway) -> Gateway:
    eventually(lambda: gateway.application.journal.standing().is_whole)
    return gateway


def test_register_receive_and_replay(make_gateway: MakeGateway) -> None:
    gateway = listening(make_gateway(SETTINGS))
    register, failures, replay = (command for command in blocks(TEXT, "sh") if command.startswith("curl"))
    made, told, listed = (json.loads(found) for found in blocks(TEXT, "json"))
    found: dict[str, Any] = {}
    exec(block(TEXT, "python", "def receive"), found)
    with Receiver() as receiver:
        reply = ask(gateway, register.replace("https://example.com/sms", receiver.url))
        assert reply.status_int == 201
        assert list(reply.json) == list(made)
        assert reply.json["events"] == made["events"]
        head = "To: 79680000000\nFrom: lvv\nModem: GSM1\nMessage_id: 7\n"
        gateway.put("sent", "m1", f"{head}\nHi")
        report = "SMS STATUS REPORT\nMessage_id: 7\nStatus: 0,Ok\n"
        gateway.put("report", "r1", f"From: 79680000000\nModem: GSM1\n\n{report}")
        (delivery,) = receiver.wait(1)
        event = found["receive"](reply.json["secret"], delivery.headers, delivery.body)
        assert event == delivery.content
        assert event.keys() == told.keys()
        assert (event["type"], event["data"]["status"]) == (told["type"], told["data"]["status"])
        assert found["receive"](reply.json["secret"], delivery.headers, delivery.body + b" ") is None
    for command in (failures, replay):
        answer = ask(gateway, command.replace("wh_0d1c…", reply.json["id"]))
        assert answer.status_int == (202 if command is replay else 200)
        assert answer.json.keys() == (listed.keys() if command is failures else {"replayed"})


def test_the_commands(base_settings: dict[str, str], make_gateway: MakeGateway, tmp_path: Path) -> None:
    gateway = make_gateway(SETTINGS)
    body = {"url": "http://127.0.0.1:1/", "events": ["message.sent"]}
    made = gateway.call("POST_JSON", "/api/v2/webhooks", body, status=201).json
    lines = [f"{name} = {value}" for name, value in gateway.settings.items()]
    (tmp_path / "production.ini").write_text("\n".join(["[app:main]", "use = egg:smsgw", *lines, ""]))
    listing, remove, listen = (shlex.split(line) for line in block(TEXT, "sh", "smsgw webhooks").splitlines())

    def run(words: list[str]) -> str:
        ini = {"production.ini": str(tmp_path / "production.ini"), "wh_0d1c…": made["id"]}
        ran = CliRunner().invoke(cli.main, [ini.get(word, word) for word in words[1:]])
        assert ran.exit_code == 0, ran.output
        return ran.output

    listed = run(listing)
    assert made["id"] in listed
    assert made["secret"] not in listed
    assert "removed" in run(remove)
    assert made["id"] not in run(listing)
    gateway.get(f"/api/v2/webhooks/{made['id']}", status=404)
    assert listen[:3] == ["smsgw", "webhooks", "listen"]


def test_events_and_figures() -> None:
    rows = TEXT[TEXT.index("| event |") : TEXT.index("Users hear of")]
    assert set(re.findall(r"^\| `([a-z.]+)` \|", rows, re.M)) == set(TYPES.values())
    assert first_cells(rows) == set()
    defaults = {node.name: node.missing for node in Webhooks.Settings().children}
    assert f"{defaults['per_user']} of them" in TEXT
    assert f"within {defaults['timeout']:g} seconds" in TEXT
    assert f"{post.MOST // 1024} KiB" in TEXT
    assert f"{outbox.KEPT // 86400} days" in TEXT
    assert receivers.EACH == 8
    assert "Up to eight requests" in TEXT
    minute, hour = 60, 3600
    said = re.search(r"after 5 seconds, 5 minutes, 30 minutes, ([0-9, ]+?and\s[0-9]+) hours", " ".join(TEXT.split()))
    assert said
    hours = [int(word) * hour for word in re.findall("[0-9]+", said[1])]
    assert list(dispatcher.SCHEDULE) == [5, 5 * minute, 30 * minute, *hours]
