"""``token``: made and revoked by the command, shown through HTTP, kept in a real database."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from smsgw.cli import main as command
from smsgw.files import stamp
from smsgw.store import Store
from smsgw.testing import OutageConformance
from smsgw_plugins.token import text
from smsgw_plugins.token.table import TABLES
from tests import programs
from tests.conftest import OUTGOING, Gateway, basic, eventually, sha
from tests.postgresql import Postgresql
from tests.server import Server, free_port

LIST = "/api/v1.0/sms/outgoing/"
SMSGW = Path(sys.executable).with_name("smsgw")


@dataclass(frozen=True)
class Tokens:
    """The command ``smsgw token``, on the ini file of a gateway."""

    ini: Path

    def run(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """What it said on stdout and stderr."""
        from click.testing import CliRunner

        result = CliRunner().invoke(command, ["token", *arguments], env={"SMSGW_INI": str(self.ini)})
        assert result.exit_code == status, (result.output, result.exception)
        assert "Traceback" not in result.output
        return result.stdout, result.stderr

    def create(self, user: str = "ops", *options: str) -> str:
        stdout, _ = self.run("create", "--user", user, *options)
        (token,) = stdout.splitlines()
        return token

    def revoke(self, token: str) -> None:
        self.run("revoke", text.id_of(token))


def write_ini(folder: Path, settings: dict[str, str]) -> Path:
    ini = folder / "gateway.ini"
    lines = "".join(f"{key} = {value}\n".replace("%", "%%") for key, value in settings.items())
    ini.write_text(f"[app:main]\nuse = egg:smsgw\n{lines}")
    return ini


@pytest.fixture
def settings(store_url: str) -> dict[str, str | None]:
    return {"smsgw.plugins": "token htpasswd allow", "smsgw.store": store_url}


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], settings: dict[str, str | None]) -> Gateway:
    return make_gateway(settings)


@pytest.fixture
def tokens(gateway: Gateway, tmp_path: Path) -> Tokens:
    return Tokens(write_ini(tmp_path, gateway.settings))


def ask(gateway: Gateway, header: str, status: int = 200, address: str = "10.0.0.1") -> str:
    gateway.app.authorization = None
    environ = {"REMOTE_ADDR": address}
    return str(gateway.app.get(LIST, headers={"Authorization": header}, extra_environ=environ, status=status).text)


def send(gateway: Gateway, header: str, status: int = 201) -> None:
    gateway.app.authorization = None
    body = {"mobiles": ["79680000000"], "text": "Hi, Jack!"}
    gateway.app.post_json(OUTGOING, body, headers={"Authorization": header}, status=status)


def bearer(token: str) -> str:
    return f"Bearer {token}"


class TestUse:
    def test_as_bearer(self, gateway: Gateway, tokens: Tokens) -> None:
        send(gateway, bearer(tokens.create("ops")))
        (content,) = gateway.files().values()
        assert b"From: ops\n" in content

    def test_as_a_password(self, gateway: Gateway, tokens: Tokens) -> None:
        token = tokens.create("ops")
        ask(gateway, basic("ops", token))
        for other in ("OPS", "lvv", "nobody", "ops "):
            ask(gateway, basic(other, token), 401)

    def test_of_a_user_that_htpasswd_does_not_know(self, gateway: Gateway, tokens: Tokens) -> None:
        ask(gateway, bearer(tokens.create("cron job №1")))

    def test_groups(self, make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
        gateway = make_gateway(
            {
                "smsgw.plugins": "token allow whitelist",
                "smsgw.htpasswd.path": None,
                "smsgw.whitelist.numbers": "@alarms: 112\n@staff: 113",
            }
        )
        tokens = Tokens(write_ini(tmp_path, gateway.settings | {"smsgw.whitelist.numbers": "@alarms: 112"}))
        send(gateway, bearer(tokens.create("ops", "--groups", "alarms,staff")), 403)
        send(gateway, bearer(tokens.create("ops", "--groups", "alarms", "--groups", "staff")), 403)
        send(gateway, bearer(tokens.create("ops")))

    def test_expiry(self, gateway: Gateway, tokens: Tokens) -> None:
        token = tokens.create("ops", "--expires", "1h")
        ask(gateway, bearer(token))
        change(gateway, "UPDATE tokens SET expires = :at", at=int(time.time()) + 600)
        ask(gateway, bearer(token))
        change(gateway, "UPDATE tokens SET expires = :at", at=int(time.time()))
        ask(gateway, bearer(token), 401)
        assert "expired" in tokens.run("list")[0]

    def test_the_chain_goes_as_the_ini_file_says(self, make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
        """Whose password begins as a token does is not let in by a backend that stands after it."""
        password = "smsgw_password"
        for plugins, status in (("token htpasswd allow", 401), ("htpasswd token allow", 200)):
            gateway = make_gateway({"smsgw.plugins": plugins})
            (tmp_path / "htpasswd").write_text(f"lvv:{sha(password)}\n")
            ask(gateway, basic("lvv", password), status)

    def test_a_token_stands_before_or_behind_a_password(self, gateway: Gateway, tokens: Tokens) -> None:
        ask(gateway, basic("lvv", "SecretPAss"))
        ask(gateway, basic("lvv", tokens.create("lvv")))
        ask(gateway, basic("lvv", "wrong"), 401)


class TestRefused:
    def test_whatever_is_not_quite_it(self, gateway: Gateway, tokens: Tokens) -> None:
        token = tokens.create()
        wrong = [
            *(token[:-1], token + "x", token.upper(), token.lower(), token[:20] + "_" + token[21:]),
            *("smsgw_", "smsgw_" + "0" * 42, text.make(), token.replace("smsgw_", "smsgw__"), " " + token[1:]),
            *(token + "\0", token + "é", token + "a" * 2**20, token + " x", f"{token},{token}", token[:-1] + "٣"),
        ]
        for number, secret in enumerate(wrong):
            for header in (f"Bearer {secret}".encode("latin-1", "replace").decode("latin-1"), basic("ops", secret)):
                ask(gateway, header, 401, address=f"10.0.{number}.1")
        ask(gateway, bearer(token))

    def test_misspelt_is_refused_without_a_database(self, make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
        gateway = make_gateway({"smsgw.plugins": "token htpasswd allow", "smsgw.store": f"sqlite:///{tmp_path}/no/db"})
        token = text.make()
        ask(gateway, bearer(token[:-1] + ("0" if token[-1] != "0" else "1")), 401)
        ask(gateway, bearer(token), 503)

    @given(data=st.data())
    def test_any_change(self, found: tuple[Gateway, str], data: st.DataObject) -> None:
        gateway, token = found
        place = data.draw(st.integers(0, len(token)))
        length = data.draw(st.integers(0, 3))
        put = data.draw(st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=3))
        mangled = token[:place] + put + token[place + length :]
        status = 200 if mangled == token else 401
        ask(gateway, bearer(mangled), status, address=os.urandom(8).hex())
        ask(gateway, basic("ops", mangled), status, address=os.urandom(8).hex())

    @pytest.fixture
    def found(self, gateway: Gateway, tokens: Tokens) -> tuple[Gateway, str]:
        return gateway, tokens.create()

    def test_guesses_are_counted_by_address(self, make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
        gateway = make_gateway({"smsgw.plugins": "token htpasswd allow", "smsgw.guesses_per_address": "5"})
        token = Tokens(write_ini(tmp_path, gateway.settings)).create()
        for _ in range(5):
            ask(gateway, bearer(text.make()), 401)
        ask(gateway, bearer(token), 429)
        ask(gateway, bearer(token), address="10.0.0.2")

    def test_a_token_is_in_no_log_no_reply_and_no_file(
        self, gateway: Gateway, tokens: Tokens, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        good, bad, revoked = tokens.create(), text.make(), tokens.create()
        tokens.revoke(revoked)
        replies = ask(gateway, bearer(good))
        for token in (bad, bad[:-1], revoked):
            replies += ask(gateway, bearer(token), 401) + ask(gateway, basic("ops", token), 401)
        change(gateway, "ALTER TABLE tokens RENAME COLUMN owner TO gone")
        replies += ask(gateway, bearer(good), 503)
        said = replies + caplog.text + "".join(tokens.run("list", status=1))
        files = b"".join(path.read_bytes() for path in gateway.spool.parent.rglob("*") if path.is_file())
        for token in (good, bad, revoked):
            assert token[14:-7] not in said
            assert token[14:-7].encode() not in files


class TestRevoked:
    def test_at_once(self, gateway: Gateway, tokens: Tokens) -> None:
        one, two = tokens.create(), tokens.create()
        for token in (one, two):
            ask(gateway, bearer(token))
        tokens.revoke(one)
        ask(gateway, bearer(one), 401)
        ask(gateway, bearer(two))

    def test_what_is_known_of_a_token_ends_with_any_change(
        self, make_gateway: Callable[..., Gateway], tmp_path: Path
    ) -> None:
        """SQLite is not asked again while its file is unchanged: another process may have locked it."""
        gateway = make_gateway({"smsgw.plugins": "token htpasswd allow"})
        path = gateway.state / "store.sqlite3"
        tokens = Tokens(write_ini(tmp_path, gateway.settings))
        token = tokens.create()
        ask(gateway, bearer(token))
        eventually(lambda: stamp(path) is not None)
        ask(gateway, bearer(token))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            ask(gateway, bearer(token))
        tokens.revoke(token)
        ask(gateway, bearer(token), 401)
        eventually(lambda: stamp(path) is not None)
        ask(gateway, bearer(token), 401)
        path.rename(tmp_path / "away")
        path.mkdir()
        ask(gateway, bearer(token), 503)

    def test_in_every_process(self, base_settings: dict[str, str], store_url: str, tmp_path: Path) -> None:
        settings = base_settings | {"smsgw.plugins": "token htpasswd allow", "smsgw.store": store_url}
        tokens = Tokens(write_ini(tmp_path, settings))
        with Server(tmp_path, settings, workers=2) as server:

            def replies(token: str) -> set[int]:
                headers = {"Authorization": bearer(token)}
                return {server.request("GET", LIST, user=None, headers=headers).status for _ in range(20)}

            for _ in range(3):
                token = tokens.create()
                assert replies(token) == {200}
                tokens.revoke(token)
                assert replies(token) == {401}


class TestDatabase:
    def test_what_is_down_stops_tokens_alone(self, make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
        folder = tmp_path / "database"
        gateway = make_gateway(
            {"smsgw.plugins": "token htpasswd allow", "smsgw.store": f"sqlite:///{folder}/store.sqlite3"}
        )
        token = text.make()
        assert "out of service" in ask(gateway, bearer(token), 503)
        ask(gateway, basic("lvv", "SecretPAss"))
        ask(gateway, "Bearer other", 401)
        folder.mkdir()
        ask(gateway, bearer(Tokens(write_ini(tmp_path, gateway.settings)).create()))
        ask(gateway, bearer(token), 401)

    def test_postgresql_goes_and_comes_back(self, make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
        with Postgresql() as server:
            gateway = make_gateway({"smsgw.plugins": "token htpasswd allow", "smsgw.store": server.create()})
            token = Tokens(write_ini(tmp_path, gateway.settings)).create()
            ask(gateway, bearer(token))
            server.stop()
            ask(gateway, bearer(token), 503)
            ask(gateway, basic("lvv", token), 503)
            ask(gateway, basic("lvv", "SecretPAss"))
            ask(gateway, bearer(token[:-1]), 401)
            server.start()
            ask(gateway, bearer(token))

    def test_use_is_noted_once_a_minute(self, gateway: Gateway, tokens: Tokens) -> None:
        token = tokens.create()
        assert used(gateway) is None
        for _ in range(3):
            ask(gateway, bearer(token))
        first = used(gateway)
        assert first is not None
        assert abs(first - time.time()) < 5
        change(gateway, "UPDATE tokens SET used = 1")
        ask(gateway, bearer(token))
        assert used(gateway) == 1
        assert "1970-01-01 00:00" in tokens.run("list")[0]

    def test_use_that_cannot_be_noted(
        self, make_gateway: Callable[..., Gateway], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """While another writes."""
        gateway = make_gateway({"smsgw.plugins": "token htpasswd allow"})
        token = Tokens(write_ini(tmp_path, gateway.settings)).create()
        with contextlib.closing(sqlite3.connect(gateway.state / "store.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(5):
                ask(gateway, bearer(token))
        assert caplog.text.count("could not be noted") == 1
        assert text.id_of(token) in caplog.text

    def test_where_nothing_can_be_written(self, base_settings: dict[str, str], tmp_path: Path) -> None:
        """A gateway that starts on a database that is read-only: for root, by what the system allows."""
        settings = base_settings | {"smsgw.plugins": "token htpasswd allow"}
        tokens = Tokens(write_ini(tmp_path, settings))
        token = tokens.create()
        if shutil.which("setpriv") is None or os.geteuid() != 0:
            pytest.skip("setpriv (Debian package util-linux) is not there, or this is not run as root")
        state = Path(settings["smsgw.spool"]) / "outgoing" / ".smsgw"
        with contextlib.closing(sqlite3.connect(state / "store.sqlite3")) as other:
            other.execute("SELECT * FROM tokens").fetchall()  # so that the files beside it are there
            for path in state.glob("store.sqlite3*"):
                os.chown(path, 12345, 12345)
                path.chmod(0o444)
            enter = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
            with Server(tmp_path, settings, enter=enter) as server:
                headers = {"Authorization": bearer(token)}
                for _ in range(3):
                    assert server.request("GET", LIST, user=None, headers=headers).status == 200
                assert server.stderr.count("could not be noted") == 1


def change(gateway: Gateway, statement: str, **parameters: object) -> list[Any]:
    """What the operator of the database does to it, behind the gateway's back."""
    engine = sqlalchemy.create_engine(gateway.settings["smsgw.store"].replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        found = connection.execute(sqlalchemy.text(statement), parameters)
        rows = list(found.scalars()) if found.returns_rows else []
    engine.dispose()
    return rows


def used(gateway: Gateway) -> int | None:
    (found,) = change(gateway, "SELECT used FROM tokens")
    return found


class TestCommands:
    def test_create(self, tokens: Tokens) -> None:
        stdout, stderr = tokens.run("create", "--user", "ops", "--groups", "alarms staff", "--expires", "90d")
        assert re.fullmatch(r"smsgw_[0-9A-Za-z]{42}\n", stdout)
        assert text.is_token(stdout.strip())
        assert f"Token {text.id_of(stdout)} of ops, until " in stderr
        assert stdout.strip() not in stderr
        assert "until it is revoked" in tokens.run("create", "--user", "ops", "--expires", "never")[1]

    def test_list(self, tokens: Tokens) -> None:
        forever = tokens.create(
            "ops", "--groups", "@alarms,staff", "--expires", "never", "--comment", "[red]cron[/red]"
        )
        revoked = tokens.create("lvv", "--expires", "2w")
        tokens.revoke(revoked)
        stdout, _ = tokens.run("list")
        head, *rows = (re.split(r" {2,}", line.strip()) for line in stdout.splitlines())
        assert head == ["id", "owner", "groups", "created (UTC)", "expires", "last use", "state", "comment"]
        of = {row[0]: row[1:] for row in rows}
        created = of[text.id_of(forever)][2]
        assert of[text.id_of(forever)] == [
            "ops",
            "alarms staff",
            created,
            "never",
            "never",
            "active",
            "[red]cron[/red]",
        ]
        assert of[text.id_of(revoked)][0] == "lvv"
        assert of[text.id_of(revoked)][-1] == "revoked"
        assert forever not in stdout

    def test_list_of_none(self, tokens: Tokens) -> None:
        stdout, _ = tokens.run("list")
        assert len(stdout.splitlines()) == 1

    def test_what_others_wrote_into_the_database(self, tokens: Tokens, gateway: Gateway) -> None:
        """No terminal obeys it, and none of it passes for a line of its own."""
        id = text.id_of(tokens.create())
        with contextlib.closing(Store(gateway.settings["smsgw.store"])) as store:
            store.keep(TABLES)
            with store.begin() as connection:
                connection.execute(
                    sqlalchemy.text("UPDATE tokens SET owner = :it, comment = :it"), {"it": "a\x1b[2J\nb"}
                )
        stdout, _ = tokens.run("list")
        assert stdout.splitlines()[1].count(r"a\x1b[2J\nb") == 2
        assert r"of a\x1b[2J\nb is revoked" in tokens.run("revoke", id)[1]

    def test_revoke(self, tokens: Tokens) -> None:
        token = tokens.create()
        assert "is revoked" in tokens.run("revoke", text.id_of(token))[1]
        assert "already" in tokens.run("revoke", text.id_of(token))[1]
        assert "no token of that id" in tokens.run("revoke", "12345678", status=1)[1]
        assert "is revoked" in tokens.run("revoke", tokens.create())[1]

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--user", ""],
            ["--user", "@alarms"],
            ["--user", "*"],
            ["--user", " ops"],
            ["--user", "o\nps"],
            ["--user", "o\0ps"],
            ["--user", "é" * 50],
            ["--user", "\udcff"],
            ["--user", "ops", "--groups", "@"],
            ["--user", "ops", "--groups", "@@alarms"],
            ["--user", "ops", "--groups", "*"],
            ["--user", "ops", "--groups", "a" * 100],
            ["--user", "ops", "--comment", "two\nlines"],
            *(["--user", "ops", "--expires", word] for word in ("", "90", "-1d", "0d", "1.5d", "99999y", "１d", "d")),
        ],
    )
    def test_what_makes_no_token(self, tokens: Tokens, arguments: list[str]) -> None:
        stdout, stderr = tokens.run("create", *arguments, status=2)
        assert stdout == ""
        assert "Error: " in stderr
        assert len(tokens.run("list")[0].splitlines()) == 1

    def test_no_database(self, tokens: Tokens, gateway: Gateway, tmp_path: Path) -> None:
        ini = write_ini(tmp_path, gateway.settings | {"smsgw.store": f"sqlite:///{tmp_path}/no/db"})
        stdout, stderr = Tokens(ini).run("create", "--user", "ops", status=1)
        assert stdout == ""
        said = "The gateway's database is out of service"
        assert stderr == f"Error: {said} ({tmp_path}/no/db): unable to open database file\n"
        store = f"postgresql://smsgw:Gehe!m@127.0.0.1:{free_port()}/sms"
        ini = write_ini(tmp_path, gateway.settings | {"smsgw.store": store})
        stderr = Tokens(ini).run("list", status=1)[1]
        assert f"{said} (127.0.0.1/sms): " in stderr
        assert "Gehe!m" not in stderr
        ini = write_ini(tmp_path, gateway.settings | {"smsgw.store": "mysql://db"})
        assert "smsgw.store should begin with" in Tokens(ini).run("list", status=3)[1]

    def test_before_the_gateway_has_ever_run(self, base_settings: dict[str, str], tmp_path: Path) -> None:
        settings = base_settings | {"smsgw.plugins": "token allow"}
        del settings["smsgw.htpasswd.path"]
        token = Tokens(write_ini(tmp_path, settings)).create()
        with Server(tmp_path, settings) as server:
            assert server.request("GET", LIST, user=None, headers={"Authorization": bearer(token)}).status == 200

    def test_it_is_said_where_nobody_could_use_one(self, base_settings: dict[str, str], tmp_path: Path) -> None:
        ini = write_ini(tmp_path, base_settings)
        made = programs.run([SMSGW, "token", "create", ini, "--user", "ops"])
        assert (made.returncode, text.is_token(made.stdout.strip())) == (0, True)
        assert "smsgw.plugins does not name 'token'" in made.stderr

    def test_as_a_program(self, tokens: Tokens) -> None:
        """Piped, as a script of an operator's does it; only stdout has the token."""
        made = subprocess.run([SMSGW, "token", "create", tokens.ini, "--user", "ops"], capture_output=True, text=True)
        assert (made.returncode, text.is_token(made.stdout.strip())) == (0, True)
        id = text.id_of(made.stdout)
        listed = programs.run([SMSGW, "token", "list", tokens.ini])
        assert listed.stdout.splitlines()[1].startswith(f"{id}  ops  ")
        assert programs.run([SMSGW, "token", "revoke", id, tokens.ini]).returncode == 0
        none = programs.run([SMSGW, "token", "revoke", "x", tokens.ini])
        assert (none.returncode, none.stdout) == (1, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act on another user's spool")
class TestAsRoot:
    GATEWAY = 12345  # the gateway's uid

    def test_the_files_are_the_gateway_s(self, base_settings: dict[str, str], tmp_path: Path) -> None:
        """While the command writes, SQLite's journal is there, too."""
        tokens = Tokens(write_ini(tmp_path, base_settings))
        state = self.make(base_settings)
        tokens.create()
        with contextlib.closing(Store(f"sqlite:///{state}/store.sqlite3")) as store:
            store.keep(TABLES)
            with store.begin() as connection:
                connection.exec_driver_sql("UPDATE tokens SET owner = 'lvv'")
                files = sorted(state.glob("store*"))
                assert [path.name for path in files] == ["store.sqlite3", "store.sqlite3-journal"]
                for path in files:
                    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (self.GATEWAY, 0o600)
            assert self.as_gateway(state) == 0
        tokens.create()
        assert self.as_gateway(state) == 0

    @pytest.mark.parametrize("target", ["database", "nothing"])
    def test_links_of_the_gateway_s_user(self, base_settings: dict[str, str], tmp_path: Path, target: str) -> None:
        """Who can write to the folder cannot let root write elsewhere."""
        ini = write_ini(tmp_path, base_settings | {"smsgw.plugins": "token htpasswd allow"})
        state = self.make(base_settings)
        own = tmp_path / "root"
        own.mkdir(mode=0o700)
        if target == "database":
            with contextlib.closing(sqlite3.connect(own / target)) as database:
                database.execute("CREATE TABLE secret (word)")
        before = [(path.name, path.read_bytes()) for path in own.iterdir()]
        link = state / "store.sqlite3"
        link.symlink_to(own / target)
        os.chown(link, self.GATEWAY, self.GATEWAY, follow_symlinks=False)
        for arguments in (["token", "create", "--user", "ops", ini], ["token", "list", ini], ["login", ini, "ops"]):
            given = f"{text.make()}\n".encode()
            ended = programs.run([SMSGW, *arguments], input=given)
            assert (ended.returncode, "Traceback" in ended.stderr) == (1, False), ended.stderr
            assert "is out of service" in ended.stderr + ended.stdout
        programs.run([SMSGW, "check", ini])
        assert [(path.name, path.read_bytes()) for path in own.iterdir()] == before

    def test_its_folder_is_not_made(self, base_settings: dict[str, str], tmp_path: Path) -> None:
        state = self.make(base_settings)
        state.rmdir()
        os.chown(state.parent, 54321, -1)
        stderr = Tokens(write_ini(tmp_path, base_settings)).run("create", "--user", "ops", status=3)[1]
        assert "start the gateway once" in stderr
        assert not state.exists()

    def make(self, settings: dict[str, str]) -> Path:
        state = Path(settings["smsgw.spool"]) / "outgoing" / ".smsgw"
        state.mkdir(mode=0o700)
        os.chown(state, self.GATEWAY, self.GATEWAY)
        for folder in Path(settings["smsgw.spool"]).parents:
            if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(0o755)
        return state

    def as_gateway(self, state: Path) -> int:
        """The exit status of a process that becomes the gateway's user and writes to the database."""
        script = f"import os, sqlite3; os.setgroups([]); os.setgid({self.GATEWAY}); os.setuid({self.GATEWAY}); "
        script += f"sqlite3.connect({str(state / 'store.sqlite3')!r}).executescript('UPDATE tokens SET owner = 1')"
        return subprocess.run([sys.executable, "-c", script], check=False).returncode


class TestConformance(OutageConformance):
    """What every authentication plugin must stand."""

    plugin = "token"
    schemes = ("Bearer", "Basic")

    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        folder = tmp_path / "database"
        folder.mkdir()
        return folder

    @pytest.fixture
    def settings(self, database: Path) -> Mapping[str, str]:
        return {"smsgw.store": f"sqlite:///{database}/store.sqlite3"}

    @pytest.fixture
    def users(self, base_settings: dict[str, str], settings: Mapping[str, str], tmp_path: Path) -> Mapping[str, str]:
        tokens = Tokens(write_ini(tmp_path, base_settings | dict(settings)))
        return {user: tokens.create(user) for user in ("ops", "lvv")}

    @pytest.fixture
    def broken(self, database: Path) -> Any:
        @contextlib.contextmanager
        def away() -> Iterator[None]:
            kept = database.rename(database.with_name("away"))
            yield
            kept.rename(database)

        return away
