"""What README, docs and ini files say is what happens: commands are run, settings are set, examples are tried."""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner
from colander import MappingSchema
from pyramid.paster import get_app

from smsgw import cli, model
from smsgw.mailbox import SEARCHED
from smsgw.options import MAX_DELAY, MAX_VALIDITY
from smsgw.refusals import Rejection
from smsgw.settings import CoreSchema, JournalSchema
from smsgw.spool.owner import CANCELLED_KEPT
from smsgw.status import OUTGOING
from smsgw.testing import MakeGateway
from smsgw.views.problem import KINDS, KINDS_OF_REFUSALS
from smsgw.views.v2_body import SendSchema
from smsgw.views.v2_search import LIMIT, MOST
from tests.conftest import Gateway, eventually, make_spool, sha
from tests.provider import Provider
from tests.server import Server, free_port
from tests.test_architecture import PUBLIC

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PRODUCTION = (ROOT / "production.ini").read_text()
OPERATION = (ROOT / "docs" / "operation.md").read_text()
API = (ROOT / "docs" / "api-v1.md").read_text()
V2 = (ROOT / "docs" / "api-v2.md").read_text()
PLUGINS = (ROOT / "docs" / "plugins.md").read_text()
TOKENS = (ROOT / "docs" / "tokens.md").read_text()
ALTERNATIVES = (r"spool", r"jwt\.key_file", r"ldap\.user_dn", r"ldap\.group_attribute")  # of which the other is set
SHIPPED = sorted(path.stem for path in (ROOT / "plugins").iterdir() if not path.name.startswith("_"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def block(text: str, language: str, words: str) -> str:
    """The one block that has those words in it."""
    (found,) = (found for found in blocks(text, language) if words in found)
    return found


def known_settings() -> set[str]:
    found = {f"smsgw.{node.name}" for node in CoreSchema().children}
    found |= {f"smsgw.journal.{node.name}" for node in JournalSchema().children}
    for name in SHIPPED:
        plugin = getattr(importlib.import_module(f"smsgw_plugins.{name}"), name.capitalize())
        found |= {f"smsgw.{name}.{node.name}" for node in getattr(plugin, "Settings", MappingSchema)().children}
    return found


@pytest.fixture
def development(tmp_path: Path) -> Iterator[None]:
    """The development gateway as the README's first command serves it, with a spool of the test's own."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if probe.connect_ex(("127.0.0.1", 5000)) == 0:
            pytest.skip("a free port 5000: something else listens on it")
    for name in ("development.ini", "development.htpasswd"):
        shutil.copy(ROOT / name, tmp_path)
    pserve = Path(sys.executable).with_name("pserve")
    process = subprocess.Popen([pserve, tmp_path / "development.ini"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any("Serving on" in line for line in process.stderr)
        yield
    finally:
        process.kill()
        process.communicate()


def run(command: str) -> tuple[int, dict[str, object]]:
    """A ``curl -i`` command as the README has it: status and JSON."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    reply = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
    head, _, body = reply.partition("\n\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.usefixtures("development")
def test_the_first_message() -> None:
    send, read = [block for block in blocks(README, "sh") if block.startswith("curl")][:2]
    status, sent = run(send)
    assert status == 201
    example, example_of_sent = [json.loads(block) for block in blocks(README, "json")][:2]
    assert sent.keys() == example.keys()
    ids = sent.pop("message_id")
    assert isinstance(ids, dict)
    assert ids.keys() == example.pop("message_id").keys()
    assert sent == example
    command = read.replace("smsgw.http.2bpDiR", ids["79160000000"])
    eventually(lambda: run(command)[0] == 200)
    status, found = run(command)
    assert found.keys() == example_of_sent.keys()
    assert found["text"] == example_of_sent["text"]
    assert found["To"] == example_of_sent["To"]


@pytest.mark.usefixtures("development")
def test_from_post_to_delivered() -> None:
    """Word for word, but for the port of the receiver."""
    register, send, hasten = [block for block in blocks(README, "sh") if block.startswith("curl")][2:]
    program, *words = shlex.split(block(README, "sh", "smsgw webhooks listen"))
    port = str(free_port())
    status, made = run(register.replace("5080", port))
    assert status == 201
    assert run(hasten.replace("wh_0d1c", str(made["id"]))) == (202, {"replayed": 0})
    assert list(made) == list(json.loads(blocks(README, "json")[2]))
    listen = [Path(sys.executable).with_name(Path(program).name), *words[:-1], str(made["secret"]), "--port", port]
    with subprocess.Popen(listen, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as receiver:
        try:
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == f"Listening on http://127.0.0.1:{port}/\n"
            status, reply = run(send)
            assert status == 202
            shown = ""
            while not re.search(r'"message.delivered",(.|\n)*\n}\n', shown):
                shown += receiver.stdout.readline()
        finally:
            receiver.kill()
    first, second = re.split(r"^msg_[0-9a-f]{32}: the signature is right\n", shown, flags=re.M)[1:]
    assert blocks(README, "text")[0].splitlines()[1:] == second.splitlines()[:2]
    (message,) = reply["messages"]  # type: ignore[attr-defined]
    for event, word in ((first, "sent"), (second, "delivered")):
        told = json.loads(event)
        assert (told["type"], told["data"]["status"]) == (f"message.{word}", word)
        assert (told["data"]["id"], told["data"]["text"]) == (message["id"], "Hi, Jack!")


@pytest.mark.usefixtures("development")
def test_from_page_to_page(tmp_path: Path) -> None:
    """The loop of api-v2.md, and its message for the inbox, with the development gateway."""
    found: dict[str, Any] = {}
    exec(block(V2, "python", "def messages"), found)
    send = next(block for block in blocks(README, "sh") if block.startswith("curl"))
    ids = {id for _ in range(3) for id in dict(run(send)[1]["message_id"]).values()}  # type: ignore[call-overload]
    assert run(send.replace("Jack", "Jill"))[0] == 201
    pages = found["messages"]("http://127.0.0.1:5000", "lvv", "SecretPAss", "limit=2")
    assert ids < {message["id"] for message in pages}
    subprocess.run(["sh", "-c", block(V2, "sh", "printf")], check=True, cwd=tmp_path)
    assert (tmp_path / "spool" / "incoming" / "GSM1.ZTmYXZ").read_text().endswith("\n\nHello")


def test_a_message_for_the_inbox(gateway: Gateway, tmp_path: Path) -> None:
    """As api-v2.md says, for an administrator."""
    (tmp_path / "try").mkdir()
    (tmp_path / "try" / "spool").symlink_to(gateway.spool)
    subprocess.run(["sh", "-c", block(V2, "sh", "printf")], check=True, cwd=tmp_path / "try")
    (message,) = gateway.get("/api/v2/inbox", user="root").json["messages"]
    assert (message["id"], message["text"], message["from"]) == ("GSM1.ZTmYXZ", "Hello", "+79161234567")


def test_cancelling_is_tried_with_the_development_gateway(tmp_path: Path) -> None:
    """As development.ini says."""
    text = (ROOT / "development.ini").read_text()
    assert "To try cancelling, send one\n# with a send_at to come." in text
    shutil.copy(ROOT / "development.htpasswd", tmp_path)
    path = tmp_path / "development.ini"
    path.write_text(text)
    from webtest import TestApp

    router = get_app(str(path))
    try:
        gateway = Gateway(TestApp(router), tmp_path / "spool")
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        body = {"to": ["79680000000"], "text": "Hi, Jack!", "send_at": later}
        (message,) = gateway.call("POST_JSON", "/api/v2/messages", body, status=202).json["messages"]
        assert message["status"] == "scheduled"
        assert gateway.delete(message["url"]).json["status"] == "cancelled"
    finally:
        router.registry.application.owner.stop()


def test_the_two_commands_are_those_that_ci_runs() -> None:
    first, second = blocks(README, "sh")[:2]
    assert first.endswith(" && .venv/bin/pserve development.ini\n")
    assert second.endswith(" && .venv/bin/pytest\n")
    assert first.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert second.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_production_ini_explains_every_setting() -> None:
    assert set(re.findall(r"^#?(smsgw\.[a-z_.]+) =", PRODUCTION, re.M)) == known_settings()


def test_no_document_names_a_setting_that_is_none() -> None:
    modules = [module.removeprefix("smsgw.").replace(".", r"\.") for module in (*PUBLIC, "smsgw.testing")]
    words = r"http\.|md\b|service\b|hookspecs|model|resources|settings|verified|files|testing|cli|api|numbers|text"
    words += r"|spool\.\w+"
    no_setting = re.compile(rf"\bsmsgw\.(?:(?:{'|'.join(modules)})\.\w+|{words})")
    examples = {name.lower() for name in re.findall(r"^class (\w+):", PLUGINS, re.M)}
    for path in [ROOT / "README.md", ROOT / "development.ini", *(ROOT / "docs").glob("*.md")]:
        named = set(re.findall(r"\bsmsgw\.[a-z_]+(?:\.[a-z_]+)?", no_setting.sub("", path.read_text())))
        named = {name for name in named if path.name != "plugins.md" or name.split(".")[1] not in examples}
        assert named <= known_settings(), path


@pytest.fixture
def production(tmp_path: Path) -> Callable[[str], Path]:
    """An ini file with the places of this machine put in for those of an operator's."""

    def write(text: str) -> Path:
        spool = make_spool(tmp_path / "spool")
        (spool / "OTHER").mkdir()
        templates = tmp_path / "templates"
        templates.mkdir(exist_ok=True)
        folders = "".join(f"{kind} = {spool / kind}\n" for kind in ("outgoing", "sent", "failed", "incoming", "report"))
        (tmp_path / "smsd.conf").write_text(f"devices = GSM1\n{folders}[queues]\nOTHER = {spool / 'OTHER'}\n")
        (tmp_path / "htpasswd").write_text(f"lvv:{sha('SecretPAss')}\n")
        (tmp_path / "ldap-password").write_text("S3rviceSecret\n")
        (tmp_path / "ldap-password").chmod(0o600)
        trustme.CA().cert_pem.write_to_path(tmp_path / "ldap-ca.pem")
        for theirs, ours in (
            ("/etc/smsd.conf", str(tmp_path / "smsd.conf")),
            ("/etc/smsgw/htpasswd", str(tmp_path / "htpasswd")),
            ("/etc/smsgw/templates", str(templates)),
            ("/etc/smsgw/ldap-password", str(tmp_path / "ldap-password")),
            ("/etc/smsgw/ldap-ca.pem", str(tmp_path / "ldap-ca.pem")),
            ("/etc/smsgw/provider-ca.pem", str(tmp_path / "ldap-ca.pem")),
            ("/etc/smsgw/webhooks-ca.pem", str(tmp_path / "ldap-ca.pem")),
            ("/var/spool/sms", str(spool)),
            ("file_group = smsd", f"file_group = {_group()}"),
            ("127.0.0.1:5000", f"127.0.0.1:{free_port()}"),
        ):
            assert theirs in text
            text = text.replace(theirs, ours)
        path = tmp_path / "production.ini"
        path.write_text(text)
        return path

    return write


def _group() -> str:
    import grp

    return grp.getgrgid(os.getgid()).gr_name


@pytest.mark.parametrize("every", [False, True])
def test_production_ini(production: Callable[[str], Path], every: bool, tmp_path: Path) -> None:
    """As it stands, and with every example in it switched on."""
    text = PRODUCTION
    if every:
        text = re.sub(r"^#(?=smsgw\.|    [^:\n]+: )", "", text, flags=re.M)
        text = re.sub(rf"^smsgw\.({'|'.join(ALTERNATIVES)}) = .*\n", "", text, flags=re.M)
        text = re.sub(r"^smsgw\.plugins = .*$", f"smsgw.plugins = {' '.join(SHIPPED)}", text, flags=re.M)
    path = production(text + ("\n# /var/spool/sms file_group = smsd" if not every else ""))
    from webtest import TestApp

    router = get_app(str(path))
    try:
        gateway = Gateway(TestApp(router), tmp_path / "spool")
        assert gateway.send(mobiles=["112"]).json["message_id"].keys() == {"112"}
    finally:
        router.registry.application.owner.stop()


@pytest.mark.parametrize("program", ["pserve", "gunicorn"])
def test_the_servers(production: Callable[[str], Path], program: str, tmp_path: Path) -> None:
    """production.ini by the commands of README and operation.md."""
    command = re.findall(rf"/bin/({program} .*production\.ini.*)\n", README + OPERATION)[0]
    path = production(PRODUCTION)
    words = [str(path) if word.endswith("production.ini") else word for word in shlex.split(command)[1:]]
    port = re.search(r"^listen = 127.0.0.1:(\d+)", path.read_text(), re.M)
    assert port
    words = [word.replace("5000", port[1]) for word in words]
    options = ["--no-control-socket"] if program == "gunicorn" else []
    executable = Path(sys.executable).with_name(program)
    process = subprocess.Popen(
        [executable, *options, *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stderr is not None
        assert any("Serving on" in line or "Booting worker" in line for line in process.stderr)
        client = object.__new__(Server)
        client.port = int(port[1])
        assert client.monitor().json == {"monitoring": "ok"}
        assert client.send(["79680000000"]).status == 201
        assert len(list((tmp_path / "spool" / "outgoing").glob("smsgw.http.*"))) == 1
    finally:
        os.killpg(process.pid, 9)
        process.communicate()


def test_the_unit_of_systemd(tmp_path: Path) -> None:
    """It runs what the README runs, as the user that the README makes, and systemd knows every word of it."""
    (unit,) = blocks(OPERATION, "ini")
    assert "/etc/systemd/system/smsgw.service" in OPERATION
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit)
    service = parser["Service"]
    assert f"runuser -u {service['User']} -- {service['ExecStart']}\n" in README
    assert f"adduser --system --group {service['User']} " in README
    if shutil.which("systemd-analyze") is None:
        return
    path = tmp_path / "smsgw.service"
    unit = unit.replace("ExecStart=/opt/smsgw/bin/", f"ExecStart={Path(sys.executable).parent}/")
    path.write_text(unit.replace("User=smsgw", "User=root"))
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert str(path) not in said


def test_a_wrong_setting_stops_the_servers(production: Callable[[str], Path]) -> None:
    path = production(PRODUCTION.replace("smsgw.plugins =", "smsgw.plugin ="))
    for command in (["pserve", path], ["gunicorn", "--no-control-socket", "-b", "127.0.0.1:0", "--paste", path]):
        executable = Path(sys.executable).with_name(str(command[0]))
        ended = subprocess.run([executable, *command[1:]], capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 3
        assert "did you mean 'smsgw.plugins'" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_mistake_outside_of_our_settings_is_the_last_line(production: Callable[[str], Path], tmp_path: Path) -> None:
    """Each that the README names; ``pserve`` tells of it before, or after, smsgw can."""
    pserve = Path(sys.executable).with_name("pserve")
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        for old, new, last in (
            ("", "", "No such file"),
            ("smsgw.plugins =", "smsgw.prefix = 100%\nsmsgw.plugins =", "'%' must be followed by"),
            ("smsgw.plugins =", "smsgw.plugins = allow\nsmsgw.plugins =", "'smsgw.plugins' in section 'app:main'"),
            ("threads = 4", "thread = 4", "'thread'"),
            ("listen = 127.0.0.1:5000", f"listen = 127.0.0.1:{port}  \n# 127.0.0.1:5000", "Address already in use"),
        ):
            shutil.rmtree(tmp_path / "spool", ignore_errors=True)
            path = production(PRODUCTION.replace(old, new)) if old else tmp_path / "absent.ini"
            ended = subprocess.run([pserve, path], capture_output=True, text=True, timeout=60, check=False)
            assert ended.returncode == 1
            assert last in ended.stderr.splitlines()[-1]


def example(name: str) -> str:
    """The block of plugins.md that has that class."""
    return block(PLUGINS, "python", f"class {name}:\n")


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """The folder that plugins.md tells how to make, with both plugins."""
    folder = tmp_path / "acme-sms"
    folder.mkdir()
    (folder / "acme_sms.py").write_text(example("Shout"))
    (folder / "acme_keys.py").write_text(example("Keys"))
    (folder / "conftest.py").write_text(block(PLUGINS, "python", "pytest_plugins"))
    (folder / "test_acme_sms.py").write_text(block(PLUGINS, "python", "def test_shout"))
    (folder / "test_acme_keys.py").write_text(block(PLUGINS, "python", "class TestKeys("))
    (project,) = blocks(PLUGINS, "toml")
    assert all(line in PLUGINS for line in ('`keys = "acme_keys:Keys"`', '`"acme_keys"`'))
    project = project.replace('shout = "acme_sms:Shout"\n', 'shout = "acme_sms:Shout"\nkeys = "acme_keys:Keys"\n')
    (folder / "pyproject.toml").write_text(project.replace('["acme_sms"]', '["acme_sms", "acme_keys"]'))
    return folder


def test_from_an_empty_folder_to_plugins_at_work(acme: Path, tmp_path: Path, base_settings: dict[str, str]) -> None:
    install, test = block(PLUGINS, "sh", "pip install").splitlines()
    where = shlex.split(install)[-1].partition("[")[0]
    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    for command in (
        [sys.executable, "-m", "pip", "install", where, *offline],
        [sys.executable, "-m", *test.removeprefix(".venv/bin/").split(), "-p", "no:cacheprovider"],
    ):
        ran = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"\b1\d passed", ran.stdout.splitlines()[-1])
    enter = ["env", f"PYTHONPATH={tmp_path / 'site'}"]
    shout, keys = blocks(PLUGINS, "ini")
    name, _, value = shout.strip().partition(" = ")
    with Server(tmp_path, base_settings | {name: value}, enter=enter) as server:
        assert server.send(["79680000000"]).json["sent_text"] == "HI, JACK!"
    found = json.dumps({hashlib.sha256(b"key-of-ann").hexdigest(): {"userid": "ann", "groups": ["alarms"]}})
    (tmp_path / "keys.json").write_text(found)
    settings = dict(line.split(" = ") for line in keys.strip().splitlines())
    settings = base_settings | settings | {"smsgw.keys.path": str(tmp_path / "keys.json")}
    (tmp_path / "production.ini").write_text(
        "\n".join(["[app:main]", "use = egg:smsgw", *(f"{name} = {value}" for name, value in settings.items()), ""])
    )
    said = []
    for command in block(PLUGINS, "sh", "smsgw login").splitlines():
        program, *words = command.split()
        command = [Path(sys.executable).with_name(Path(program).name), *words]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, input="key-of-ann\n"
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        said.append(ran.stdout)
    assert "the key desk's file" in said[0]
    assert re.search(r"keys.*ann", said[1])
    with Server(tmp_path, settings, enter=enter) as server:
        assert server.send(["79680000000"]).status == 201
        reply = server.request("GET", "/api/v1.0/sms/sent/", user=None, headers={"Authorization": "Bearer key-of-ann"})
        assert reply.status == 200
        reply = server.request("GET", "/api/v1.0/sms/sent/", user=None, headers={"Authorization": "Bearer key-of-bob"})
        assert reply.status == 401


EXAMPLES = (
    *("Polite", "Home", "Badge", "Monitor", "Cheap", "Tidy", "Frugal", "Watch", "Heartbeat", "Tally", "Hello"),
    *("Notes", "Greeter", "Tickets", "Roaming", "Bulk", "Carrier", "AutoReply"),
)


@pytest.fixture
def examples(distribution: Callable[..., None]) -> None:
    """All other plugins of plugins.md, and the README's, each in a distribution of its own."""
    for name in EXAMPLES:
        distribution(f"acme_{name.lower()}", example(name), **{name.lower(): name})
    distribution("acme_shout", block(README, "python", "class Shout:\n"), shout="Shout")


def test_every_example_of_plugins_md_is_tried() -> None:
    classes = re.findall(r"^class (\w+):", PLUGINS, re.M)
    assert set(classes) == {*EXAMPLES, "Shout", "Keys"}
    tests = ("pytest_plugins", "def test_shout", "class TestKeys(", "def test_recipients", "class TestBadge(")
    tests += ("def upgrade(op",)  # which test_migrations tries
    assert len(blocks(PLUGINS, "python")) == len(classes) + len(tests)
    assert all(block(PLUGINS, "python", words) for words in tests)


@pytest.mark.usefixtures("examples")
def test_the_example_that_carries_messages(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow roaming"})
    posted = []
    gateway.plugin("roaming").post = lambda *message: posted.append(message)
    ids = gateway.send(mobiles=["79680000000", "12025550123"], text="Hi").json["message_id"]
    assert posted == [(ids["12025550123"], "12025550123", "Hi")]
    assert [message.headers["To"] for message in gateway.messages()] == ["79680000000"]


@pytest.mark.usefixtures("examples")
def test_the_example_that_answers(make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    gateway = make_gateway(
        {"smsgw.plugins": "htpasswd allow autoreply", "smsgw.autoreply.text": "Thanks", "smsgw.region": "RU"}
    )
    gateway.put("incoming", "GSM1.1", "From: ACME\nModem: GSM1\n\nBuy!")
    gateway.put("incoming", "GSM1.2", "From: 8613800138000\nModem: GSM1\n\nHi")
    (answer,) = eventually(gateway.messages)
    assert (answer.headers["To"], answer.owner, answer.text) == ("8613800138000", "auto-reply", "Thanks")
    eventually(lambda: "no answer to GSM1.1: None of the messages can be sent" in caplog.text)


@pytest.mark.usefixtures("examples")
def test_the_examples_that_route_and_refuse_the_whole(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow bulk carrier"})
    many = [f"7968{number:07}" for number in range(201)]
    assert "errors" not in gateway.send(mobiles=many, status=403).json
    gateway.send(mobiles=["79160000000", "79680000000"], queue="GSM1", priority="high")
    queues = {message.headers["To"]: message.headers["Queue"] for message in gateway.messages()}
    assert queues == {"79160000000": "MTS", "79680000000": "GSM1"}
    assert not [message for message in gateway.messages() if "Priority" in message.headers]


@pytest.mark.usefixtures("examples")
def test_the_examples_of_plugins(make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    gateway = make_gateway(
        {
            "smsgw.plugins": "badge htpasswd monitor allow cheap home tidy shout polite frugal tally watch"
            " heartbeat hello notes",
            "smsgw.polite.words": "thank you",
            "smsgw.monitor.secret": "geheim",
            "smsgw.badge.pins": "\nbadge-17: 1234",
            "smsgw.home.numbers": "\nlvv: 7 112\n*: 7916",
        }
    )
    assert gateway.send(text=" Hi,\nJack! ").json["sent_text"] == "HI, JACK!, thank you"
    assert gateway.send(text=" ", status=400).json["errors"] == {"text": "has nothing but white space"}
    many = [f"7968{number:07}" for number in range(101)]
    refused = gateway.send(mobiles=many, status=429)
    assert refused.headers["Retry-After"] == "3600"
    assert refused.headers["RateLimit-Policy"] == '"frugal";q=100'
    gateway.send(mobiles=many[1:])
    assert gateway.send(mobiles=["112", "79680000000", "12025550123"]).json["errors"].keys() == {"112", "12025550123"}
    assert gateway.send(user="ops", mobiles=["79160000000", "79680000000"]).json["errors"].keys() == {"79680000000"}
    assert "extra" not in gateway.send(mobiles=["112"], status=403).text
    gateway.get("/hello", user=None, status=401)
    assert gateway.get("/hello").json == {"hello": "lvv"}
    note = {"text": "Back at noon"}
    assert gateway.call("POST_JSON", "/api/v2/notes", note, user="root", status=201).json == note | {"by": "root"}
    assert gateway.call("POST_JSON", "/api/v2/notes", note, status=403).json["detail"] == "You may not leave notes"
    for body in ({}, note | {"by": "ops"}, {"text": 1}):
        assert gateway.call("POST_JSON", "/api/v2/notes", body, status=400).json["errors"]
    for headers, status in (
        ({"Authorization": "Bearer geheim"}, 200),
        ({"Authorization": "Bearer falsch"}, 401),
        ({"X-Badge": "badge-17", "X-PIN": "1234"}, 200),
        ({"X-Badge": "badge-17", "X-PIN": "1235"}, 401),
    ):
        gateway.get("/hello", user=None, headers=headers, status=status)
    with contextlib.closing(sqlite3.connect(gateway.state / "store.sqlite3")) as store:
        assert dict(store.execute("SELECT userid, count FROM tally_sent")) == {"lvv": 102, "ops": 1}
    with caplog.at_level(logging.ERROR, "watch"):
        gateway.put("failed", "smsgw.http.X", "To: 79680000000\nFrom: lvv\nFail_reason: no network\n\nHi")
        eventually(lambda: "smsgw.http.X failed: no network" in caplog.text)


@pytest.mark.usefixtures("examples")
def test_the_example_of_a_credential(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "tickets htpasswd allow hello"})
    gateway.get("/hello", user=None, headers={"Authorization": "Bearer open sesame"})
    assert gateway.application.holds("tickets:7")
    gateway.plugin("tickets").tickets.clear()
    gateway.get("/hello", user=None, headers={"Authorization": "Bearer open sesame"}, status=401)
    assert not gateway.application.holds("tickets:7")


@pytest.mark.usefixtures("examples")
def test_the_example_of_a_setting_that_is_wrong(refusal: Callable[..., str]) -> None:
    sentence = refusal({"smsgw.plugins": "htpasswd allow polite", "smsgw.polite.words": "thanks"})
    assert "smsgw.polite.words should not thank in advance" in sentence


@pytest.mark.usefixtures("examples")
def test_the_example_of_a_command(tmp_path: Path, base_settings: dict[str, str]) -> None:
    lines = [f"{name} = {value}" for name, value in base_settings.items()]
    (tmp_path / "production.ini").write_text("\n".join(["[app:main]", "use = egg:smsgw", *lines, ""]))
    program, *words = shlex.split(block(PLUGINS, "sh", "greeter"))
    assert program == "smsgw"
    words[words.index("production.ini")] = str(tmp_path / "production.ini")
    ran = CliRunner().invoke(cli.main, words)
    assert ran.output == "Good morning, Jack\n"


def test_plugins_md_has_every_name_of_the_command_line() -> None:
    table = PLUGINS[PLUGINS.index("All that `smsgw.cli` has:") : PLUGINS.index("## Testing")]
    cells = re.findall(r"^\| (`.*?`) \|", table, re.M)
    assert sorted(name for cell in cells for name in re.findall(r"`(\w+)", cell)) == sorted(cli.__all__)


def test_the_examples_of_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        acme_sms="\n\n".join(map(example, EXAMPLES)),
        test_gateway=block(PLUGINS, "python", "def test_recipients"),
        test_conformance=block(PLUGINS, "python", "class TestBadge("),
    )
    pytester.makeconftest(block(PLUGINS, "python", "pytest_plugins"))
    ran = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error::pytest.PytestWarning")
    assert ran.ret == 0, ran.stdout.str()
    assert ran.parseoutcomes()["passed"] > 20


def test_a_policy_that_only_restricts_allows_nothing(
    distribution: Callable[..., None], make_gateway: Callable[..., Gateway]
) -> None:
    distribution("acme", example("Cheap"), cheap="Cheap")
    gateway = make_gateway({"smsgw.plugins": "htpasswd cheap", "smsgw.allow.admins": None})
    gateway.send(status=403)


def test_plugins_md_has_every_type_with_its_fields() -> None:
    types = {
        f"{name}({', '.join(f'{field.name}: {field.type}' for field in dataclasses.fields(found))})"
        for name, found in vars(model).items()
        if dataclasses.is_dataclass(found) and "__annotations__" in vars(found)
    }
    table = re.findall(r"^\| `([A-Z]\w+\(.*?\))` \|", PLUGINS, re.M)
    assert {row.replace("\\|", "|") for row in table} == types


def test_the_commands_of_tokens(production: Callable[[str], Path]) -> None:
    """One after the other, as an operator would."""
    line = blocks(TOKENS, "ini")[0]
    ini = production(re.sub(r"^smsgw\.plugins = .*\n", line, PRODUCTION, flags=re.M))

    def smsgw(command: str) -> str:
        words = [str(ini) if word.endswith("production.ini") else word for word in shlex.split(command)[1:]]
        done = subprocess.run(
            [Path(sys.executable).with_name("smsgw"), *words], stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    create, ask, manage = blocks(TOKENS, "sh")
    token = smsgw(create).strip()
    assert re.fullmatch(re.findall(r"`(smsgw_\[.*?)`", TOKENS)[0], token)
    pserve = Path(sys.executable).with_name("pserve")
    process = subprocess.Popen([pserve, ini], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any("Serving on" in line for line in process.stderr)
        url = re.search(r"^listen = (.*)", ini.read_text(), re.M)
        assert url
        asked = ask.replace("127.0.0.1:5000", url[1]).replace("$TOKEN", token).replace("curl", "curl -i").splitlines()
        assert [run(line)[0] for line in asked] == [200, 200]
        listing, revoke = manage.splitlines()
        id = token[6:14]
        assert id in smsgw(listing)
        assert "the alarm server" in smsgw(listing)
        smsgw(re.sub(r"revoke \S+", f"revoke {id}", revoke))
        assert [run(line)[0] for line in asked] == [401, 401]
    finally:
        process.kill()
        process.communicate()


def test_the_settings_of_an_identity_provider(make_gateway: Callable[..., Gateway]) -> None:
    _, jwt, groups, chain = blocks(TOKENS, "ini")
    with Provider() as provider:
        url = re.sub(r"(?m)^(smsgw.jwt.jwks_url = ).*", rf"\1{provider.url}", jwt)
        for written in (url, url + groups, url + groups + chain):
            parser = configparser.ConfigParser(strict=False)  # the last line counts
            parser.optionxform = str  # type: ignore[assignment,method-assign]
            parser.read_string(f"[app:main]\n{written}")
            settings = dict(parser["app:main"])
            settings["smsgw.plugins"] += " signature"
            gateway = make_gateway(settings | {"smsgw.signature.lines": "@alarms: ALARM"})
            found = provider.token(realm_access={"roles": ["sms-alarms" if groups in written else "alarms"]})
            gateway.app.authorization = None
            headers = {"Authorization": f"Bearer {found}"}
            reply = gateway.app.post_json("/api/v1.0/sms/outgoing", {"mobiles": ["112"], "text": "Hi"}, headers=headers)
            assert reply.json["sent_text"] == "Hi\nALARM"


def test_the_examples_of_the_api(gateway: Gateway) -> None:
    curl, others = blocks(API, "sh")
    words = shlex.split(curl)
    headers = dict(words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H")
    body = json.loads(words[words.index("-d") + 1])
    replies = [gateway.call("POST_JSON", "/api/v1.0/sms/outgoing", body, headers=headers, status=201) for _ in range(2)]
    assert replies[0].body == replies[1].body
    assert len(gateway.files()) == 1
    (example,) = (json.loads(block) for block in blocks(API, "json"))
    (number,) = example["message_id"]
    found = gateway.send(mobiles=[number, *example["errors"]]).json
    assert found["errors"] == example["errors"]
    assert found.keys() == example.keys()
    listing, cancelling = (shlex.split(line) for line in others.splitlines())
    gateway.put("sent", "smsgw.http.X", "To: 79680000000\nFrom: lvv\n\nHi")
    assert gateway.get(listing[-1]).json == {"message_id": ["smsgw.http.X"], "limit": 2, "total_count": 1}
    assert cancelling[cancelling.index("-X") + 1] == "DELETE"
    (id,) = found["message_id"].values()
    gateway.delete(cancelling[-1].replace("smsgw.http.2bpDiR", id))
    gateway.delete(cancelling[-1].replace("smsgw.http.2bpDiR", id), status=404)


def test_api_v1_md_names_the_limits() -> None:
    defaults = {node.name: node.missing for node in CoreSchema().children}
    assert f"1 to {MAX_VALIDITY} |" in API
    assert f"1 to {defaults['max_recipients']} (`smsgw.max_recipients`)" in API
    assert f"at most {defaults['max_parts']} parts as it goes out (`smsgw.max_parts`)" in API


def ask(gateway: Gateway, curl: str, id: str = "") -> Any:
    """A ``curl`` command of a document: what is replied."""
    words = shlex.split(curl.replace("smsgw.http.2bpDiR", id))
    headers = dict(words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H")
    url = words[-1].removeprefix("http://127.0.0.1:5000")
    if "-d" in words:
        return gateway.call("POST_JSON", url, json.loads(words[words.index("-d") + 1]), headers=headers, status="2*")
    return gateway.call(words[words.index("-X") + 1] if "-X" in words else "GET", url, status="2*")


def shape(found: Any) -> Any:
    """JSON without what differs from day to day: ids, times, cursors."""
    text = re.sub(r"smsgw\.http\.(01JD…|[0-9A-Z]{26})", "ID", json.dumps(found, ensure_ascii=False))
    return json.loads(re.sub(r"20\d\d-\d\d-\d\dT[0-9:.]+Z", "TIME", text))


def test_the_examples_of_the_v2_api(make_gateway: Callable[..., Gateway]) -> None:
    plugins = {"smsgw.plugins": "htpasswd allow transliterate quota webhooks", "smsgw.quota.limits": "lvv: 1000/day"}
    gateway = make_gateway(plugins | {"smsgw.webhooks.allow_private": "true"})
    commands = [block for block in blocks(V2, "sh") if block.startswith("curl")]
    replies = [json.loads(block) for block in blocks(V2, "json")]
    many, each, once, read, cancel, search, inbox, preview, me, register = commands
    sent, message, received, previewed, identity, webhook, refused = replies

    found = ask(gateway, many)
    assert found.status_int == 202
    assert shape(found.json) == shape(sent)
    assert ask(gateway, each).json["rejected"] == []
    assert ask(gateway, once).body == ask(gateway, once).body
    assert len(gateway.files()) == 5

    first, second = (each["id"] for each in found.json["messages"])
    path = gateway.spool / "outgoing" / first
    path.write_text(path.read_text().replace("\n\n", "\nModem: GSM1\nSent: 26-11-23 07:11:05\n\n", 1))
    path.rename(gateway.spool / "sent" / first)
    assert shape(ask(gateway, read, first).json) == shape(message)
    assert list(ask(gateway, read, first).json) == list(message)
    page = ask(gateway, search).json
    assert [each["id"] for each in page["messages"]] == [second]
    assert page["next"].startswith(re.findall(r'"next": "(.*?)…', V2)[0])
    assert ask(gateway, cancel, second).json["status"] == "cancelled"
    assert shape(ask(gateway, preview).json) == previewed
    left = {"left": identity["limits"][0]["left"] - 3}  # the example is of another day
    assert shape(ask(gateway, me).json) == shape(identity | {"limits": [identity["limits"][0] | left]})
    made = ask(gateway, register).json
    assert made["url"] == webhook["url"]
    assert list(made) == list(webhook)
    head = "From: 79161234567\nReceived: 26-11-23 07:11:05\nModem: GSM1\nAlphabet: UTF-8\n"
    gateway.put("incoming", "GSM1.ZTmYXZ", f"{head}\nHello")
    url = shlex.split(inbox)[-1].removeprefix("http://127.0.0.1:5000")
    assert shape(gateway.get(url, user="root").json) == shape(received)
    body = {"to": ["911", 5], "text": "a", "colour": 1}
    problem = gateway.call("POST_JSON", "/api/v2/messages", body, status=400).json
    assert problem.keys() == refused.keys()
    assert sorted(map(str, problem["errors"])) == sorted(map(str, refused["errors"]))


def first_cells(text: str) -> set[str]:
    """The words in the first column of the tables in that text."""
    cells = re.findall(r"^\| (`.*?`) \|", text, re.M)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def test_api_v2_md_has_every_status_code_parameter_and_problem() -> None:
    statuses = V2[V2.index("| status | where") : V2.index("### Taking it back")]
    assert first_cells(statuses) == set(OUTGOING)
    codes = V2[V2.index("| `code` in") : V2.index("`pointer` says")]
    assert first_cells(codes.partition("\n")[2]) == set(re.findall(r'"(\w+)"', inspect.getdoc(Rejection) or ""))
    fields = V2[V2.index("| field |") : V2.index("At most 10000")]
    assert first_cells(fields) == {node.name for node in SendSchema().children}
    kinds = {kind for kind, _ in [*KINDS.values(), *KINDS_OF_REFUSALS.values()]}
    assert kinds == set(re.findall(r"^### ([a-z-]+)$", V2, re.M))
    defaults = {node.name: node.missing for node in CoreSchema().children}
    assert f"1 to {MAX_VALIDITY} |" in V2
    assert f"At most {defaults['max_recipients']} recipients" in V2
    assert f"and {defaults['max_parts']} parts" in V2
    assert f"at most {MAX_DELAY.days} days ahead" in V2
    assert f"1 to {MOST}, else {LIMIT}" in V2
    assert f"known for {CANCELLED_KEPT // 86400} days" in V2
    assert f"most {SEARCHED} messages" in V2


def test_documents_link_to_what_is_there() -> None:
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), target


def test_smsgw_s_own_folder_is_as_operation_says(gateway: Gateway) -> None:
    gateway.send()
    named = set(re.findall(r"^\| `([a-z]+)` \|", OPERATION, re.M))
    assert {path.name for path in gateway.state.iterdir() if path.is_dir()} == named
