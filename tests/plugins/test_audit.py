"""``audit``: what is written down of v1, v2, webhooks, the command line and plugins; to a file and to syslog."""

from __future__ import annotations

import grp
import hashlib
import hmac
import json
import os
import pwd
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pyramid.request import Request

from smsgw import cli
from smsgw.api import Draft, send
from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials, Identity
from smsgw.testing import MakeGateway
from tests import tmpfs
from tests.conftest import Gateway
from tests.test_documentation import ROOT, block, blocks, first_cells

TEXT = (ROOT / "docs" / "audit.md").read_text()
MESSAGES = "/api/v2/messages"
V1 = "/api/v1.0/sms"
FROM = {"REMOTE_ADDR": "192.0.2.7"}

Audited = Callable[..., Gateway]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audited(make_gateway: MakeGateway, path: Path) -> Audited:
    def make(plugins: str = "htpasswd allow audit", **settings: str | None) -> Gateway:
        changes: dict[str, str | None] = {"smsgw.plugins": plugins, "smsgw.audit.path": str(path)}
        return make_gateway(changes | {f"smsgw.audit.{name}": value for name, value in settings.items()})

    return make


def records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().split("\n") if line] if path.exists() else []


def test_who_sent_what_to_whom_from_where(audited: Audited, path: Path) -> None:
    gateway = audited()
    body = {"to": ["+79680000000", "+79160000000", "12"], "text": "Hi,\u2028 Jack!\n"}
    reply = gateway.call("POST_JSON", MESSAGES, body, extra_environ=FROM, status=202)
    gateway.send(mobiles=["911"], text="Ж")
    first, second, third = records(path)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("at"))
    assert first == {
        "action": "send",
        "user": "lvv",
        "credential": "htpasswd:lvv",
        "via": f"POST {MESSAGES}",
        "address": "192.0.2.7",
        "scheme": "Basic",
        "request_id": reply.headers["X-Request-ID"],
        "id": reply.json["messages"][0]["id"],
        "to": "+79680000000",
        "parts": 1,
        "text": "Hi,\u2028 Jack!\n",
    }
    assert (second["to"], second["id"]) == ("+79160000000", reply.json["messages"][1]["id"])
    assert (third["via"], third["to"], third["text"]) == (f"POST {V1}/outgoing", "911", "Ж")
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_secret_is_no_scheme(make_gateway: MakeGateway, path: Path) -> None:
    """A plugin may read a bare token from the header."""

    class Bare:
        @hookimpl
        def find_credentials(self, request: Request) -> Credentials:
            return Credentials("Bare", "lvv", request.headers["Authorization"], "")

        @hookimpl
        def authenticate(self, credentials: Credentials) -> Identity:
            return Identity(credentials.userid)

    settings = {"smsgw.plugins": "bare allow audit", "smsgw.audit.path": str(path), "smsgw.htpasswd.path": None}
    gateway = make_gateway(settings, bare=Bare)
    body = {"to": ["911"], "text": "Hi"}
    gateway.call("POST_JSON", MESSAGES, body, user=None, headers={"Authorization": "geheim"}, status=202)
    (record,) = records(path)
    assert "scheme" not in record
    assert "geheim" not in path.read_text()


def test_what_sends_nothing_is_no_send(audited: Audited, path: Path) -> None:
    gateway = audited()
    key = {"Idempotency-Key": "order-17-paid"}
    body = {"mobiles": ["911"], "text": "Hi"}
    for _ in range(2):
        gateway.call("POST_JSON", f"{V1}/outgoing", body, headers=key, status=201)
    gateway.send(mobiles=["12"], status=400)
    gateway.call("POST_JSON", MESSAGES, {}, status=400)
    gateway.call("POST_JSON", "/api/v2/preview", {"text": "Hi"})
    gateway.send(user=None, status=401)
    assert len(records(path)) == 1


def test_what_administrators_read_and_users_change(audited: Audited, path: Path) -> None:
    gateway = audited("htpasswd allow webhooks audit")
    ids = [next(iter(gateway.send(user=user).json["message_id"].values())) for user in ("lvv", "ops")]
    gateway.put("incoming", "GSM1.a", "From: 79161234567\nModem: GSM1\nid: bogus\ndeleted: x/y\n\nHello")
    path.unlink()
    for user in ("lvv", "root"):
        gateway.get(MESSAGES, user=user)
        gateway.get(f"{MESSAGES}/{ids[0]}", user=user)
        gateway.get(f"{V1}/outgoing/", user=user)
    gateway.get(f"{MESSAGES}/bogus", user="root", status=404)
    for quiet in ("/api/v2/me", "/api/v1.0/monitoring", "/api/v2/webhooks"):
        gateway.get(quiet, user="root")
    gateway.get("/api/v2/inbox", user="root")
    gateway.get(f"{V1}/incoming/GSM1.a", user="root")
    found = records(path)
    assert {(each["user"], each["action"]) for each in found} == {("root", "read")}
    inbox = [["GSM1.a"], ["GSM1.a"]]
    assert [sorted(each["ids"]) for each in found] == [sorted(ids), [ids[0]], sorted(ids), *inbox]
    assert all(each["request_id"] and each["via"].startswith("GET /api/") and "text" not in each for each in found)

    path.unlink()
    gateway.delete(f"{MESSAGES}/{ids[0]}")
    gateway.delete(f"{V1}/outgoing/{ids[1]}", user="root")
    gateway.delete("/api/v2/inbox/GSM1.a", user="root")
    gateway.delete("/api/v2/inbox/GSM1.a", user="root", status=404)
    hook = {"url": "https://192.0.2.1/", "events": ["message.sent"]}
    gateway.call("POST_JSON", "/api/v2/webhooks", hook, status=400)
    found = [(each["user"], each["action"], each["ids"]) for each in records(path)]
    assert found == [("lvv", "delete", [ids[0]]), ("root", "delete", [ids[1]]), ("root", "delete", ["GSM1.a"])]


def test_webhooks_are_changes(make_gateway: MakeGateway, path: Path) -> None:
    changes = {"smsgw.plugins": "htpasswd allow webhooks audit", "smsgw.audit.path": str(path)}
    gateway = make_gateway(changes | {"smsgw.webhooks.allow_private": "true"})
    hook = {"url": "http://127.0.0.1:1/geheim", "events": ["message.sent"]}
    id = gateway.call("POST_JSON", "/api/v2/webhooks", hook, status=201).json["id"]
    gateway.call("POST", f"/api/v2/webhooks/{id}/failures/replay", status=202)
    gateway.delete(f"/api/v2/webhooks/{id}")
    made, replayed, removed = records(path)
    assert (made["action"], made["via"], made["ids"]) == ("change", "POST /api/v2/webhooks", [id])
    assert (replayed["action"], replayed["via"]) == ("change", f"POST /api/v2/webhooks/{id}/failures/replay")
    assert (removed["action"], removed["ids"]) == ("delete", [id])
    assert "geheim" not in path.read_text()
    assert "whsec" not in path.read_text()


def test_the_command_line_and_plugins(audited: Audited, path: Path, tmp_path: Path) -> None:
    gateway = audited()
    lines = [f"{name} = {value}" for name, value in gateway.settings.items()]
    ini = tmp_path / "production.ini"
    ini.write_text("\n".join(["[app:main]", "use = egg:smsgw", *lines, ""]))
    ran = CliRunner().invoke(cli.main, ["send", str(ini), "--user", "ops", "--to", "911", "Hi"])
    assert ran.exit_code == 0, ran.output
    send(gateway.app.app.registry, Identity("heartbeat"), [Draft("112", "alive")])
    by_hand, by_plugin = records(path)
    assert (by_hand["user"], by_hand["via"], by_hand["to"]) == ("ops", "smsgw send", "911")
    assert by_hand["account"]
    assert by_hand["request_id"]
    assert (by_plugin["user"], by_plugin["via"]) == ("heartbeat", "background")
    assert not {"address", "credential", "account", "request_id"} & by_plugin.keys()


def test_what_administrators_change_on_the_command_line(make_gateway: MakeGateway, path: Path, tmp_path: Path) -> None:
    """Also where the gateway would not start. A change whose record cannot be written is made all the same."""
    changes = {"smsgw.plugins": "token htpasswd allow webhooks audit", "smsgw.audit.path": str(path)}
    gateway = make_gateway(changes | {"smsgw.webhooks.allow_private": "true"})
    hook = {"url": "http://127.0.0.1:9/", "events": ["message.sent"]}
    made = gateway.call("POST_JSON", "/api/v2/webhooks", hook, status=201).json["id"]
    path.unlink()
    lines = [f"{name} = {value}" for name, value in gateway.settings.items()]
    ini = tmp_path / "production.ini"
    ini.write_text("\n".join(["[app:main]", "use = egg:smsgw", *lines, "smsgw.htpasswd.no_such_setting = 1", ""]))

    def run(*words: str) -> str:
        ran = CliRunner().invoke(cli.main, [*words, str(ini)])
        assert ran.exit_code == 0, ran.output
        return ran.output

    found = re.search(r"Token (\S+) of ops", run("token", "create", "--user", "ops"))
    assert found
    token = found[1]
    run("token", "revoke", token)
    run("token", "revoke", token)  # which changes nothing
    run("webhooks", "remove", made)
    told = [(each["action"], each["via"], each["owner"], each["ids"]) for each in records(path)]
    assert told == [
        ("change", "smsgw token create", "ops", [token]),
        ("delete", "smsgw token revoke", "ops", [token]),
        ("delete", "smsgw webhooks remove", "lvv", [made]),
    ]
    assert list(records(path)[1]) == list(json.loads(block(TEXT, "json", "token revoke")))
    path.unlink()
    path.mkdir()
    run("token", "create", "--user", "ops")
    ini.write_text(ini.read_text().replace("[app:main]", "[app:main]\nsmsgw.audit.no_such_setting = 1"))
    assert "The plugin 'audit' has not noted this: " in run("token", "create", "--user", "ops")


@pytest.mark.parametrize(
    ("settings", "to", "text"),
    [
        ({"numbers": "shortened", "texts": "shortened"}, "+79680000…", "Hi, Jack! Hi, Jack! …"),
        ({"texts": "none"}, "+79680000000", None),
    ],
)
def test_numbers_and_texts_as_set(
    audited: Audited, path: Path, settings: dict[str, str], to: str, text: str | None
) -> None:
    audited(**settings).send(mobiles=["79680000000"], text="Hi, Jack! " * 4)
    (record,) = records(path)
    assert (record["to"], record.get("text")) == (to, text)


def test_hashes_are_those_that_openssl_makes(audited: Audited, path: Path, tmp_path: Path) -> None:
    tmpfs.need("openssl")
    make, look = block(TEXT, "sh", "openssl").splitlines()
    key = tmp_path / "audit-key"
    make = re.sub(r" && chown.*", "", make)
    subprocess.run(["sh", "-c", make.replace("/etc/smsgw/audit-key", str(key))], check=True)
    assert key.stat().st_mode & 0o777 == 0o600
    audited(numbers="hashed", texts="hashed", key_file=str(key)).send(mobiles=["79680000000"], text="Hi")
    (record,) = records(path)
    shell = look.replace("/etc/smsgw/audit-key", str(key))
    told = subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True).stdout
    assert record["to"] == f"sha256:{told.split()[-1]}"
    digest = hmac.new(key.read_bytes().strip(), b"Hi", hashlib.sha256).hexdigest()
    assert record["text"] == f"sha256:{digest}"


def test_the_file_may_be_rotated_at_any_time(audited: Audited, path: Path) -> None:
    gateway = audited()
    gateway.send()
    path.rename(path.with_suffix(".1"))
    gateway.send()
    assert len(records(path)) == len(records(path.with_suffix(".1"))) == 1
    path.write_text("")  # as logrotate's copytruncate does
    gateway.send()
    assert len(records(path)) == 1


def test_threads_do_not_mix_lines(audited: Audited, path: Path) -> None:
    gateway = audited()
    many = [f"7968{number:07}" for number in range(200)]
    plugin = gateway.plugin("audit")

    def write() -> None:
        plugin._write([json.dumps({"text": number * 50}) for number in many])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records(path)) == 4 * len(many)


def test_a_record_that_cannot_be_written_stops_no_message(
    audited: Audited, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = audited()
    path.mkdir()
    gateway.send(mobiles=["911", "112"])
    assert len(gateway.files()) == 2
    assert f"2 audit records could not be written: [Errno 21] Is a directory: '{path}'" in caplog.text
    path.rmdir()
    gateway.send(mobiles=["911"])
    assert len(records(path)) == 1


def test_a_line_that_is_torn_spoils_no_other(
    audited: Audited, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gateway, write = audited(), os.write

    def torn(fd: int, content: bytes) -> int:
        return write(fd, content[:20] if content.startswith(b'{"at"') else content)

    monkeypatch.setattr("smsgw_plugins.audit.writers.os.write", torn)
    gateway.send(mobiles=["911"])
    assert f"1 audit records could not be written: {path} is full" in caplog.text
    monkeypatch.undo()
    gateway.send(mobiles=["911"])
    torn_line, whole = path.read_text().splitlines()
    assert len(torn_line) == 20
    assert json.loads(whole)["to"] == "911"


def test_syslog(audited: Audited, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = tmp_path / "log"
    gateway = audited(path=None, syslog=str(address))
    gateway.send(mobiles=["911"])  # nobody listens yet
    assert "1 audit records could not be written" in caplog.text
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(address))
        gateway.send(mobiles=["911", "112"])
        for to in ("911", "112"):
            head, _, line = log.recv(65536).decode().partition(" ")
            assert head == "<86>smsgw-audit:"  # authpriv.info
            assert json.loads(line)["to"] == to
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        audited(path=None, syslog=f"127.0.0.1:{log.getsockname()[1]}").send(mobiles=["911"])
        assert json.loads(log.recv(65536).decode().partition(" ")[2])["to"] == "911"
    assert len(gateway.files()) == 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"path": None}, "set either smsgw.audit.path, a file, or smsgw.audit.syslog"),
        ({"syslog": "/dev/log"}, "set either smsgw.audit.path, a file, or smsgw.audit.syslog"),
        ({"path": "/nonexistent/audit.jsonl"}, "there is no folder /nonexistent; make it"),
        ({"path": None, "syslog": "log.example.com"}, "should be a socket such as /dev/log, or such as 192.0.2.1:514"),
        ({"numbers": "hashed"}, "smsgw.audit.key_file is missing"),
        ({"texts": "hashed", "key_file": "/nonexistent/key"}, "/nonexistent/key cannot be read"),
        ({"texts": "hashed", "key_file": "/dev/null"}, "/dev/null should have 16 bytes or more"),
        ({"numbers": "none"}, "smsgw.audit.numbers"),
    ],
)
def test_settings_that_are_wrong(
    refusal: Callable[..., str], path: Path, settings: dict[str, str | None], sentence: str
) -> None:
    changes = {"smsgw.plugins": "htpasswd allow audit", "smsgw.audit.path": str(path)}
    assert sentence in refusal(changes | {f"smsgw.audit.{name}": value for name, value in settings.items()})


def test_what_the_page_says(audited: Audited, path: Path) -> None:
    gateway = audited()
    body = {"to": ["+79680000000"], "text": "Hi, Jack!"}
    reply = gateway.call("POST_JSON", MESSAGES, body, extra_environ=FROM, status=202)
    id = reply.json["messages"][0]["id"]
    gateway.get(f"{MESSAGES}/{id}", user="root")
    example, (sent, read) = json.loads(block(TEXT, "json", '"send"')), records(path)
    assert list(example) == list(sent)
    fields = TEXT[TEXT.index("| field |") : TEXT.index("What there is not")]
    assert sent.keys() | read.keys() | {"account", "owner"} == first_cells(fields)
    questions = [line for found in blocks(TEXT, "sh") for line in found.splitlines() if line.startswith("grep")]
    for question, action in zip(questions, ("send", "send", "read"), strict=True):
        shell = question.replace("/var/log/smsgw/audit.jsonl", shlex.quote(str(path))).replace("smsgw.http.01JD…", id)
        told = subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True).stdout
        assert json.loads(told)["action"] == action


def test_the_folder_of_the_page(tmp_path: Path) -> None:
    """Its command makes the folder of its setting, and the package's rules of logrotate are about the file there."""
    file = re.search(r"^smsgw.audit.path = (.*)$", TEXT, re.M)
    assert file is not None
    rules = (ROOT / "packaging" / "smsgw.logrotate").read_text()
    assert f"\n{file[1]} {{\n" in rules
    assert "/etc/logrotate.d/smsgw" in (ROOT / "packaging" / "nfpm.yaml").read_text()
    folder = str(Path(file[1]).parent)
    command = block(TEXT, "sh", "install -d")
    assert command.split()[-1] == folder
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    command = command.replace("-o smsgw -g smsgw", f"-o {user} -g {group}").replace(folder, str(tmp_path / "log"))
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o750


def test_the_rules_of_logrotate(audited: Audited, path: Path, tmp_path: Path) -> None:
    """The gateway goes on in a new file."""
    tmpfs.need("logrotate")
    gateway = audited()
    gateway.send(mobiles=["911"])
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    rules = (ROOT / "packaging" / "smsgw.logrotate").read_text()
    own = tmp_path / "rules"
    own.write_text(
        rules.replace("su smsgw smsgw", f"su {user} {group}").replace("/var/log/smsgw/audit.jsonl", str(path))
    )
    own.chmod(0o644)
    tmp_path.chmod(0o700)
    subprocess.run(["logrotate", "--force", "--state", str(tmp_path / "state"), str(own)], check=True)
    assert not path.exists()
    gateway.send(mobiles=["112"])
    assert [record["to"] for record in records(path)] == ["112"]
    assert [record["to"] for record in records(path.with_name("audit.jsonl.1"))] == ["911"]
