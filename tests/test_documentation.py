"""What README, docs and ini files say is what happens: commands are run, settings are set, examples are tried."""

from __future__ import annotations

import configparser
import dataclasses
import importlib
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner
from colander import MappingSchema
from pyramid.paster import get_app

from smsgw import api, cli, model
from smsgw.granian_server import ServerSchema, read_settings
from smsgw.mailbox import SEARCHED
from smsgw.options import MAX_DELAY, MAX_VALIDITY
from smsgw.refusals import Rejection
from smsgw.settings import HealthSettings, JournalSettings, Settings, schema_of
from smsgw.spool.owner import CANCELLED_KEPT
from smsgw.status import OUTGOING
from smsgw.testing import MakeGateway, base_settings_in, running
from smsgw.verified import REMEMBERED
from smsgw.views.problem import KINDS, KINDS_OF_REFUSALS, OVER_LIMIT
from smsgw.views.v2_body import SendSchema
from smsgw.views.v2_search import LIMIT, MOST
from tests.conftest import USERS, Gateway, eventually, make_spool, sha
from tests.provider import Provider
from tests.receiver import Receiver
from tests.server import Server, free_port
from tests.test_architecture import PUBLIC

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PRODUCTION = (ROOT / "production.ini").read_text()
OPERATION = (ROOT / "docs" / "operation.md").read_text()
API = (ROOT / "docs" / "api-v1.md").read_text()
V2 = (ROOT / "docs" / "api-v2.md").read_text()
TUTORIAL = (ROOT / "docs" / "plugins.md").read_text()
REFERENCE = (ROOT / "docs" / "plugin-reference.md").read_text()
RECIPES = (ROOT / "docs" / "recipes.md").read_text()
TOKENS = (ROOT / "docs" / "tokens.md").read_text()
ALTERNATIVES = (
    r"spool",
    r"jwt\.key_file",
    r"ldap\.user_dn",
    r"ldap\.group_attribute",
    r"audit\.syslog",
)  # of which the other is set
SHIPPED = sorted(path.stem for path in (ROOT / "plugins").iterdir() if not path.name.startswith("_"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def block(text: str, language: str, words: str) -> str:
    """The one block that has those words in it."""
    (found,) = (found for found in blocks(text, language) if words in found)
    return found


def known_settings() -> set[str]:
    found = {f"smsgw.{node.name}" for node in schema_of(Settings).children}
    found |= {f"smsgw.journal.{node.name}" for node in schema_of(JournalSettings).children}
    found |= {f"smsgw.health.{node.name}" for node in schema_of(HealthSettings).children}
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


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
    command = read.replace("smsgw.http.01JD…", ids["79160000000"])
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
    assert run(hasten.replace("wh_0d1c…", str(made["id"]))) == (202, {"replayed": 0})
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
    granian = PRODUCTION.partition("[server:granian]\n")[2].partition("\n[")[0]
    written = dict(re.findall(r"^#?([a-z_]+) = (.+)$", granian, re.M))
    assert written.pop("use") == "egg:smsgw#granian"
    defaults = {node.name: node.missing for node in ServerSchema().children}
    assert written.keys() == defaults.keys()
    assert read_settings({name: written[name] for name in written if defaults[name] is not None}) == defaults


def test_speed_quotes_rows_of_the_benchmark() -> None:
    """Which takes the servers from ``production.ini`` itself."""
    rows = re.findall(r'^    "([a-z0-9-]+)": ', (ROOT / "tests" / "bench" / "__main__.py").read_text(), re.M)
    quoted = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "speed.md").read_text(), re.M)
    assert set(quoted) <= set(rows)


def test_no_document_names_a_setting_that_is_none() -> None:
    modules = [module.removeprefix("smsgw.").replace(".", r"\.") for module in (*PUBLIC, "smsgw.testing")]
    words = r"http\.|md\b|service\b|hookspecs|model|resources|status\b|settings|verified|files|testing|cli|api|numbers"
    words += r"|text|tls|logs\b|logrotate\b|spool\.\w+"
    no_setting = re.compile(rf"\bsmsgw\.(?:(?:{'|'.join(modules)})\.\w+|{words})")
    examples = {name.lower() for name in ("Shout", *EXAMPLES)}
    for path in [ROOT / "README.md", ROOT / "development.ini", *(ROOT / "docs").glob("*.md")]:
        named = set(re.findall(r"\bsmsgw\.[a-z_]+(?:\.[a-z_]+)?", no_setting.sub("", path.read_text())))
        named = {name for name in named if name.split(".")[1] not in examples}
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
        (tmp_path / "audit-key").write_text("5e" * 32)
        trustme.CA().cert_pem.write_to_path(tmp_path / "ldap-ca.pem")
        for theirs, ours in (
            ("/etc/smsd.conf", str(tmp_path / "smsd.conf")),
            ("/etc/smsgw/htpasswd", str(tmp_path / "htpasswd")),
            ("/etc/smsgw/templates", str(templates)),
            ("/etc/smsgw/ldap-password", str(tmp_path / "ldap-password")),
            ("/etc/smsgw/ldap-ca.pem", str(tmp_path / "ldap-ca.pem")),
            ("/etc/smsgw/provider-ca.pem", str(tmp_path / "ldap-ca.pem")),
            ("/etc/smsgw/audit-key", str(tmp_path / "audit-key")),
            ("/var/log/smsgw/", f"{tmp_path}/"),
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


@pytest.mark.parametrize("server", ["waitress", "gunicorn", "granian"])
def test_the_servers(production: Callable[[str], Path], server: str, tmp_path: Path) -> None:
    """production.ini by the commands of README and operation.md."""
    program = "gunicorn" if server == "gunicorn" else "pserve"
    more = " --server-name granian" if server == "granian" else ""
    command = re.findall(rf"/bin/({program} .*production\.ini{more}.*)\n", README + OPERATION)[0]
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
        assert any(re.search("Serving on|Booting worker|Started worker", line) for line in process.stderr)
        client = object.__new__(Server)
        client.port = int(port[1])
        client.await_answer()
        assert client.monitor().json == {"monitoring": "ok"}
        assert client.send(["79680000000"]).status == 201
        assert len(list((tmp_path / "spool" / "outgoing").glob("smsgw.http.*"))) == 1
    finally:
        os.killpg(process.pid, 9)
        process.communicate()


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


EXAMPLES = {
    **dict.fromkeys(("Robots", "Thrifty", "Frugal", "Watch"), REFERENCE),
    **dict.fromkeys(("AutoReply", "Heartbeat", "Deadline", "Tally", "Roaming", "Certificates"), RECIPES),
    **dict.fromkeys(("Slow", "Country", "Alarms", "Notes", "Greeter"), RECIPES),
}


def example(name: str) -> str:
    """The block that has that class."""
    return block(EXAMPLES[name], "python", f"class {name}:\n")


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """The folder of the tutorial after its fourth section."""
    folder = tmp_path / "acme-sms"
    folder.mkdir()
    (folder / "acme_sms.py").write_text(blocks(TUTORIAL, "python")[0])
    (folder / "test_acme_sms.py").write_text(blocks(TUTORIAL, "python")[1])
    (folder / "pyproject.toml").write_text(*blocks(TUTORIAL, "toml"))
    (folder / "acme.ini").write_text(blocks(TUTORIAL, "ini")[0].replace("127.0.0.1:5001", f"127.0.0.1:{free_port()}"))
    shutil.copy(ROOT / "development.htpasswd", folder)
    return folder


def test_the_tutorial(acme: Path, tmp_path: Path) -> None:
    """Step by step, but for the virtual environment: the distribution is installed into a folder, without a network."""
    prepare, install, serve, send, show = blocks(TUTORIAL, "sh")
    assert all(f"`{name}`" in TUTORIAL for name in ("acme_sms.py", "test_acme_sms.py", "pyproject.toml", "acme.ini"))
    assert prepare.startswith("mkdir acme-sms\ncd acme-sms\npython3 -m venv .venv\n")
    assert '"../smsgw[htpasswd,testing]"' in prepare
    assert prepare.endswith("\ncp ../smsgw/development.htpasswd .\n")
    assert install == ".venv/bin/pip install -e .\n.venv/bin/pytest\n"
    site = tmp_path / "site"
    environment = os.environ | {"PYTHONPATH": f"{acme}:{site}"}

    def run_in_folder(program: str, *words: str) -> str:
        command = [sys.executable, "-m", program] if program != "smsgw" else [Path(sys.executable).with_name(program)]
        ran = subprocess.run([*command, *words], cwd=acme, env=environment, check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def sent() -> str:
        """The text that the reply to the tutorial's ``curl`` has."""
        program, ini = serve.split()
        command = [Path(sys.executable).with_name(Path(program).name), ini]
        port = re.search(r"^listen = 127.0.0.1:(\d+)", (acme / "acme.ini").read_text(), re.M)
        assert port
        with subprocess.Popen(command, cwd=acme, env=environment, stderr=subprocess.DEVNULL) as process:
            try:
                eventually(lambda: process.poll() is not None or is_open(int(port[1])), 30)
                status, reply = run(send.replace("curl", "curl -i").replace("5001", port[1]))
            finally:
                process.kill()
        assert status == 202
        (message,) = reply["messages"]  # type: ignore[attr-defined]
        return str(message["text"])

    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(site), "--quiet"]
    run_in_folder("pip", "install", ".", *offline)
    assert "1 passed" in run_in_folder("pytest", "-p", "no:cacheprovider")
    assert f'"text": "{sent()}"' == re.findall(r'`("text": "HI.*?")`', TUTORIAL)[0]

    _, test, second, more = blocks(TUTORIAL, "python")
    (acme / "acme_sms.py").write_text(second)
    assert "1 passed" in run_in_folder("pytest", "-p", "no:cacheprovider")
    (acme / "test_acme_sms.py").write_text(f"{test}\n\n{more}")
    assert "2 passed" in run_in_folder("pytest", "-p", "no:cacheprovider")
    line = blocks(TUTORIAL, "ini")[1]
    ini = acme / "acme.ini"
    ini.write_text(re.sub(r"^(smsgw.plugins = .*\n)", rf"\1{line}", ini.read_text(), flags=re.M))
    assert f'"text": "{sent()}"' == re.findall(r'`("text": "Hi.*?")`', TUTORIAL)[0]
    (both,) = re.findall(r"`(smsgw.shout.names = lvv.*?)`", TUTORIAL)
    ini.write_text(ini.read_text().replace(line.strip(), both))
    assert sent() == "HI, JACK!"
    assert show == ".venv/bin/smsgw plugins shout\n"
    assert "users, and @groups; * is everybody" in run_in_folder("smsgw", *shlex.split(show)[1:])
    ini.write_text(ini.read_text().replace("smsgw.shout.names", "smsgw.shout.name"))
    wrong = subprocess.run(
        [Path(sys.executable).with_name("pserve"), ini], env=environment, check=False, capture_output=True, text=True
    )
    assert wrong.returncode == 3
    assert "did you mean 'smsgw.shout.names'" in wrong.stderr


@pytest.fixture
def examples(distribution: Callable[..., None]) -> None:
    """All plugins of the reference and the recipes, and the README's, each in a distribution of its own."""
    for name in EXAMPLES:
        distribution(f"acme_{name.lower()}", example(name), **{name.lower(): name})
    distribution("acme_shout", block(README, "python", "class Shout:\n"), shout="Shout")


def test_every_example_is_tried() -> None:
    for text, others in ((REFERENCE, ("class TestRobots(", "def upgrade(op")), (RECIPES, ())):
        names = [name for name, where in EXAMPLES.items() if where is text]
        assert re.findall(r"^class (\w+):", text, re.M) == names
        assert len(blocks(text, "python")) == len(names) + len(others)
        assert all(block(text, "python", words) for words in others)  # which test_migrations tries, too


@pytest.mark.usefixtures("examples")
def test_the_example_that_carries_messages(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow roaming"})
    posted = []
    gateway.plugin("roaming").post = lambda *message: posted.append(message)
    ids = gateway.send(mobiles=["79680000000", "12025550123"], text="Hi").json["message_id"]
    assert posted == [(ids["12025550123"], "12025550123", "Hi")]
    assert [message.headers["To"] for message in gateway.messages()] == ["79680000000"]
    gateway.get(f"/api/v2/messages/{ids['12025550123']}", status=404)
    gateway.send(mobiles=["112"])
    assert len(posted) == 1


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
def test_the_example_that_sends_in_the_background(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow heartbeat", "smsgw.heartbeat.to": "+79680000000"})
    (message,) = eventually(gateway.messages)
    assert (message.headers["To"], message.owner, message.text) == ("79680000000", "heartbeat", "alive")


@pytest.mark.usefixtures("examples")
def test_the_example_that_cancels(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(
        {
            "smsgw.plugins": "htpasswd allow deadline",
            "smsgw.allow.admins": "root deadline",
            "smsgw.deadline.minutes": "0",
        }
    )
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    later = {"to": ["79160000000"], "text": "Hi", "send_at": tomorrow}
    (kept,) = gateway.call("POST_JSON", "/api/v2/messages", later, status=202).json["messages"]
    gateway.put("outgoing", "due", "To: 911\nFrom: lvv\nX-Send-At: 2026-01-01T00:00:00Z\n\nHi")
    (id,) = gateway.send().json["message_id"].values()
    eventually(lambda: gateway.get(f"/api/v2/messages/{id}").json["status"] == "cancelled", 30)
    gateway.application.owner.stop()  # when it has looked at all
    assert gateway.get(kept["url"]).json["status"] == "scheduled"
    assert gateway.files().keys() == {"due"}


@pytest.mark.usefixtures("examples")
def test_the_example_that_routes(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow country"})
    gateway.send(mobiles=["4915112345678", "79680000000", "491"], queue="GSM1", priority="high")
    queues = {message.headers["To"]: message.headers["Queue"] for message in gateway.messages()}
    assert queues == {"4915112345678": "GERMANY", "79680000000": "GSM1", "s491": "GSM1"}
    assert {message.headers["Priority"] for message in gateway.messages()} == {"HIGH"}


@pytest.mark.usefixtures("examples")
def test_the_examples_of_the_reference(make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    gateway = make_gateway(
        {
            "smsgw.plugins": "robots htpasswd allow thrifty shout frugal watch",
            "smsgw.robots.tokens": "\ndoor: geheim\nroof: secret",
        }
    )
    assert gateway.send(text="Hi, Jack!").json["sent_text"] == "HI, JACK!"
    many = [f"7968{number:07}" for number in range(201)]
    assert "errors" not in gateway.send(mobiles=many, status=403).json
    refused = gateway.send(mobiles=many[:101], status=429)
    assert refused.headers["Retry-After"] == "3600"
    assert refused.headers["RateLimit-Policy"] == '"frugal";q=100'
    gateway.send(mobiles=many[:100])
    assert gateway.send(mobiles=["112", "79680000000"]).json["errors"] == {"112": "forbidden"}
    assert "extra" not in gateway.send(mobiles=["112"], status=403).text
    for token, status in (("geheim", 200), ("falsch", 401)):
        gateway.get("/api/v2/me", user=None, headers={"Authorization": f"Bearer {token}"}, status=status)
    with caplog.at_level(logging.ERROR, "watch"):
        gateway.put("failed", "smsgw.http.X", "To: 79680000000\nFrom: lvv\nFail_reason: no network\n\nHi")
        eventually(lambda: "smsgw.http.X failed: no network" in caplog.text)


@pytest.mark.usefixtures("examples")
def test_the_example_of_a_certificate(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(
        {"smsgw.plugins": "certificates htpasswd allow", "smsgw.certificates.users": "\n5ba93c9d: alarm-server"}
    )
    for address, shown, status in (
        ("127.0.0.1", "5ba93c9d", 200),
        ("127.0.0.1", "5ba93c9e", 401),
        ("192.0.2.1", "5ba93c9d", 401),
    ):
        environ = {"REMOTE_ADDR": address}
        headers = {"X-Client-Fingerprint": shown}
        reply = gateway.get("/api/v2/me", user=None, headers=headers, extra_environ=environ, status=status)
        assert status != 200 or reply.json["userid"] == "alarm-server"
    gateway.get("/api/v2/me", headers={"X-Client-Fingerprint": ""})


@pytest.mark.usefixtures("examples")
def test_the_examples_of_alarms(
    tmp_path: Path, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch, password_file: Path
) -> None:
    """The webhook's command, and the plugin, which sends by the queue of another modem."""
    monkeypatch.setattr("smsgw.watchdog.PERIOD", 0.2)
    monkeypatch.setattr("smsgw.watchdog.SETTLED", 0.2)
    spool, stats = make_spool(tmp_path / "smsd"), tmp_path / "stats"
    stats.mkdir()
    conf = tmp_path / "smsd.conf"
    folders = "".join(f"{kind} = {spool / kind}\n" for kind in ("outgoing", "sent", "failed", "incoming"))
    conf.write_text(f"devices = GSM1, GSM2\nstats = {stats}\n{folders}[queues]\nBACKUP = {spool / 'checked'}\n")
    gateway = make_gateway(
        {
            "smsgw.spool": None,
            "smsgw.smsd_conf": str(conf),
            "smsgw.health.smsd_is_here": "false",
            "smsgw.plugins": "htpasswd allow webhooks alarms",
            "smsgw.webhooks.allow_private": "true",
        }
    )
    gateway.spool = spool
    command = shlex.split(block(RECIPES, "sh", "modem.down"))
    body = json.loads(command[command.index("-d") + 1])
    example = json.loads(block(RECIPES, "json", "modem.down"))
    with Receiver() as receiver:
        body["url"] = receiver.url
        made = gateway.call("POST_JSON", "/api/v2/webhooks", body, user="root", status=201).json
        receiver.secret = made["secret"]
        (stats / "status").write_text("GSM1:\t26-11-29 10:08:42,\tBlocked,\t0,\t2,\t0\n")
        (delivery,) = receiver.wait(1, 60)
    assert list(delivery.content) == list(example)
    assert list(delivery.content["data"]) == list(example["data"])
    assert (delivery.type, delivery.content["data"]["modem"]) == ("modem.down", "GSM1")
    (message,) = eventually(lambda: gateway.messages())
    assert message.headers["Queue"] == "BACKUP"
    assert message.text.startswith("GSM1: smsd has blocked it")


@pytest.mark.usefixtures("examples")
def test_the_example_of_a_slow_backend(make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"remembers {REMEMBERED:,} secrets" in RECIPES
    gateway, asked = make_gateway({"smsgw.plugins": "slow allow", "smsgw.htpasswd.path": None}), []

    def ask(userid: str, secret: str) -> Any:
        asked.append(userid)
        return model.Identity(userid) if secret == USERS[userid] else None

    gateway.plugin("slow").ask = ask
    for _ in range(3):
        gateway.get("/api/v2/me")
    assert asked == ["lvv"]
    now = time.monotonic()
    monkeypatch.setattr("smsgw.verified.time.monotonic", lambda: now + 60)
    gateway.get("/api/v2/me")
    monkeypatch.undo()
    gateway.users["lvv"], right = "wrong", USERS["lvv"]
    for _ in range(2):
        gateway.get("/api/v2/me", status=401)
    gateway.users["lvv"] = right
    assert asked == ["lvv"] * 4


@pytest.mark.usefixtures("examples")
def test_the_example_of_an_endpoint(tmp_path: Path) -> None:
    changes = {"smsgw.plugins": "users allow notes", "smsgw.users.groups": "@editors: ops"}
    note = {"text": "Back at noon"}
    with running(base_settings_in(tmp_path / "kit") | changes) as gateway:
        assert gateway.call("POST_JSON", "/api/v2/notes", note, user="ops", status=201).json == note | {"by": "ops"}
        refused = gateway.call("POST_JSON", "/api/v2/notes", note, status=403).json
        assert refused["detail"] == "You may not leave notes"
        gateway.call("POST_JSON", "/api/v2/notes", note, user=None, status=401)
        for body in ({}, note | {"by": "ops"}, {"text": 1}):
            assert gateway.call("POST_JSON", "/api/v2/notes", body, user="ops", status=400).json["errors"]


@pytest.mark.usefixtures("examples")
def test_the_example_of_a_command(tmp_path: Path, base_settings: dict[str, str]) -> None:
    lines = [f"{name} = {value}" for name, value in base_settings.items()]
    (tmp_path / "production.ini").write_text("\n".join(["[app:main]", "use = egg:smsgw", *lines, ""]))
    program, *words = shlex.split(block(RECIPES, "sh", "greeter"))
    assert program == "smsgw"
    words[words.index("production.ini")] = str(tmp_path / "production.ini")
    ran = CliRunner().invoke(cli.main, words)
    assert ran.output == f"Good morning, Jack. Messages go to {tmp_path / 'spool' / 'outgoing'}\n"


def named(text: str) -> list[str]:
    """The names in the first words of a list, such as ``send(number)``: up to the colon."""
    heads = re.findall(r"^- ((?:`.*?`(?:, )?)+): ", re.sub(r"\n  ", " ", text), re.M)
    return [name for head in heads for name in re.findall(r"`(\w+)", head)]


def test_the_reference_has_every_name_of_the_command_line_and_of_the_api() -> None:
    text = REFERENCE[REFERENCE.index("All that `smsgw.cli` has:") : REFERENCE.index("## Testing")]
    assert sorted(named(text)) == sorted(cli.__all__)
    text = REFERENCE[REFERENCE.index("`smsgw.api` has") : REFERENCE.index("## Commands")]
    assert set(re.findall(r"`(\w+)", text.partition("\n\n")[0])) | set(named(text)) | {"ROOT"} >= set(api.__all__)


def test_the_examples_of_tests(pytester: pytest.Pytester) -> None:
    names = [name for name, where in EXAMPLES.items() if where is REFERENCE]
    pytester.makepyfile(
        acme_sms="\n\n".join(map(example, names)),
        test_conformance=block(REFERENCE, "python", "class TestRobots("),
    )
    assert "`-p smsgw.testing`" in REFERENCE
    ran = pytester.runpytest_subprocess(
        "-p", "smsgw.testing", "-p", "no:cacheprovider", "-W", "error::pytest.PytestWarning"
    )
    assert ran.ret == 0, ran.stdout.str()
    assert ran.parseoutcomes()["passed"] > 12


def test_a_policy_that_only_restricts_allows_nothing(
    distribution: Callable[..., None], make_gateway: Callable[..., Gateway]
) -> None:
    distribution("acme", example("Thrifty"), thrifty="Thrifty")
    gateway = make_gateway({"smsgw.plugins": "htpasswd thrifty", "smsgw.allow.admins": None})
    gateway.send(status=403)


def test_the_reference_has_every_type_with_its_fields() -> None:
    """But for those that no hook gets or answers."""
    types = {
        f"{name}({', '.join(field.name for field in dataclasses.fields(found))})"
        for name, found in vars(model).items()
        if dataclasses.is_dataclass(found) and "__annotations__" in vars(found)
        if name not in ("Query", "Receipt", "Remembered")
    }
    text = REFERENCE[REFERENCE.index("## Types") : REFERENCE.index("## Threads")]
    assert set(re.findall(r"`([A-Z]\w+\(.*?\))`", text)) == types


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


def test_no_two_examples_share_an_idempotency_key() -> None:
    """Who tries one after the other would be told that it was used for another request."""
    keys = [
        key
        for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for key in re.findall(r'"Idempotency-Key: ([^"]+)"', path.read_text())
    ]
    assert len(keys) == len(set(keys)) > 1


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
    gateway.delete(cancelling[-1].replace("smsgw.http.01JD…", id))
    gateway.delete(cancelling[-1].replace("smsgw.http.01JD…", id), status=404)


def test_api_v1_md_names_the_limits() -> None:
    defaults = {node.name: node.missing for node in schema_of(Settings).children}
    assert f"1 to {MAX_VALIDITY} |" in API
    assert f"1 to {defaults['max_recipients']} (`smsgw.max_recipients`)" in API
    assert f"at most {defaults['max_parts']} parts as it goes out (`smsgw.max_parts`)" in API


def ask(gateway: Gateway, curl: str, id: str = "") -> Any:
    """A ``curl`` command of a document: what is replied."""
    words = shlex.split(curl.replace("smsgw.http.01JD…", id))
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
    kinds = {(status, kind) for status, (kind, _) in KINDS.items()}
    kinds |= {(refusal.status, kind) for refusal, (kind, _) in KINDS_OF_REFUSALS.items()}
    kinds |= {(422, OVER_LIMIT[0])}
    table = re.findall(r"^\| (\d+) \| \[([a-z-]+)\]\(#([a-z-]+)\) \|", V2, re.M)
    assert {(int(status), kind) for status, kind, _ in table} == kinds
    assert [kind for _, kind, _ in table] == [anchor for _, _, anchor in table]
    assert {kind for _, kind in kinds} == set(re.findall(r"^### ([a-z-]+)$", V2, re.M))
    defaults = {node.name: node.missing for node in schema_of(Settings).children}
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


def test_every_document_is_found_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[a-z0-9-]+\.md)\)", README))
    assert linked == {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")}


def test_documents_link_to_headings_that_are_there() -> None:
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for target, heading in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", path.read_text()):
            text = (path.parent / target).read_text() if target else path.read_text()
            words = [re.sub(r"[^\w -]", "", title.lower()) for title in re.findall(r"^#+ (.*)$", text, re.M)]
            assert heading in {title.replace(" ", "-") for title in words}, (path, target, heading)


def test_smsgw_s_own_folder_is_as_operation_says(gateway: Gateway) -> None:
    gateway.send()
    named = set(re.findall(r"^\| `([a-z]+)` \|", OPERATION, re.M))
    assert {path.name for path in gateway.state.iterdir() if path.is_dir()} == named
