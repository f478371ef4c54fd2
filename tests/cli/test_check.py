"""``smsgw check``: each finding, and that nothing else is found."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smsgw.hookspecs import hookimpl
from smsgw.settings import Settings, schema_of
from smsgw.spool.daemon import Daemon
from smsgw.testing import offered
from tests.cli.conftest import Ended, Ini, as_user, executable, smsgw
from tests.conftest import at_length, eventually, make_spool
from tests.postgresql import Postgresql
from tests.server import Server, free_port
from tests.smsd.server import Smsd
from tests.test_documentation import PRODUCTION, production
from tests.tmpfs import Tmpfs

OURS = pwd.getpwuid(os.geteuid()).pw_name

__all__ = ["production"]

Install = Callable[..., None]


def check(ini: Path, *options: str) -> Ended:
    return smsgw("check", ini, *options)


def lines(ended: Ended, level: str) -> list[str]:
    """What was found at that level, without the level."""
    return [line[9:] for line in ended.out.splitlines()[1:] if line.startswith(f"{level} ")]


def test_all_is_well(ini: Ini) -> None:
    path = ini()
    assert check(path) == Ended(0, "OK (0 errors, 0 warnings)\n", "")
    told = check(path, "--verbose")
    assert told.status == 0
    assert lines(told, "ok")[0].startswith(f"settings: {path}: the core's settings are in order")
    assert {line.split(":")[0] for line in lines(told, "ok")} == {
        "settings",
        "plugins",
        "spool",
        "store",
        "smsd",
        "server",
    }


def test_it_changes_nothing(ini: Ini, base_settings: dict[str, str]) -> None:
    """Not even on a spool where no gateway has run."""
    spool = Path(base_settings["smsgw.spool"])
    (spool / "sent" / "smsgw.http.X").write_text("To: 112\n\nHi")

    def tree() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mode, path.stat().st_size) for path in spool.rglob("*") if path.is_file()}

    before = tree()
    folders = sorted(path for path in spool.rglob("*") if path.is_dir())
    assert check(ini({"smsgw.plugins": "htpasswd allow simulator"})).status == 1
    assert tree() == before
    assert sorted(path for path in spool.rglob("*") if path.is_dir()) == folders


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"smsgw.htpasswd.path": "/nonexistent"}, ["plugins: the plugin 'htpasswd'", "/nonexistent"]),
        ({"smsgw.spool": "relative"}, ["settings: ", "absolute"]),
        ({"smsgw.file_group": "no-such-group"}, ["plugins: ", "no-such-group"]),
        ({"pyramid.includes": "no_such_module"}, ["plugins: the application cannot be made", "no_such_module"]),
        ({"smsgw.max_parts": "\x1b[2Jten"}, ["settings: smsgw.max_parts", r"\x1b[2Jten"]),
    ],
)
def test_what_stops_the_start(ini: Ini, changes: dict[str, str | None], said: list[str]) -> None:
    """Each as one sentence, and all else is still looked at."""
    told = check(ini(changes), "--verbose")
    assert told.status == 3
    assert told.out.startswith("ERROR: the gateway would not start (1 error, ")
    assert "Traceback" not in told.out + told.err
    (line,) = lines(told, "stops")
    assert all(word in line for word in said), line
    assert any(line.startswith("server: ") for line in lines(told, "ok"))


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"listen": "127.0.0.1:http-but-not-quite"}, "Invalid host/port"),
        ({"threads": "four"}, "four"),
    ],
)
def test_a_server_that_would_not_start(ini: Ini, server: dict[str, str | None], said: str) -> None:
    told = check(ini({}, server))
    assert told.status == 3
    (line,) = lines(told, "stops")
    assert line.startswith("server: ")
    assert said in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"smsgw.guesses_per_address": "0"}, "smsgw.guesses_per_address is 0"),
        (
            {"smsgw.plugins": "htpasswd allow signature transliterate", "smsgw.signature.text": "ACME"},
            "transliterate stands after signature",
        ),
        ({"smsgw.plugins": "htpasswd token allow"}, "token stands after htpasswd"),
    ],
)
def test_what_is_unwise(ini: Ini, changes: dict[str, str | None], said: str) -> None:
    told = check(ini(changes))
    assert told.out.splitlines()[0] == "WARNING (0 errors, 1 warning)"
    (line,) = lines(told, "warning")
    assert said in line
    assert told.status == 1


def test_the_example_of_a_signature_after_all(ini: Ini) -> None:
    """The order that the warning asks for is one that it says nothing about."""
    path = ini({"smsgw.plugins": "htpasswd allow transliterate signature", "smsgw.signature.text": "ACME"})
    assert check(path).status == 0


@pytest.mark.parametrize(
    ("url", "warnings"),
    [
        ("ldap://directory.example.org", 1),
        ("ldaps://directory.example.org", 0),
        ("ldap://localhost", 0),
        ("ldap://127.0.0.1:3389", 0),
    ],
)
def test_passwords_over_plain_ldap(ini: Ini, url: str, warnings: int) -> None:
    changes = {"smsgw.plugins": "ldap allow", "smsgw.htpasswd.path": None, "smsgw.ldap.url": url}
    found = lines(check(ini(changes | {"smsgw.ldap.user_dn": "uid={userid},dc=example,dc=org"})), "warning")
    assert [("ldap://" in line, "starttls" in line) for line in found] == [(True, True)] * warnings


def test_what_is_insecure_by_name(ini: Ini) -> None:
    told = check(ini({"smsgw.ldap.insecure_accept_any_certificate": "yes"}))
    assert any("insecure_accept_any_certificate is on" in line for line in lines(told, "warning"))
    told = check(ini({"smsgw.ldap.insecure_accept_any_certificate": "no"}))
    assert not lines(told, "warning")


def test_a_plugin_with_a_hook_that_is_not_marked(ini: Ini, distribution: Install) -> None:
    distribution("acme", "class Idle:\n    def transform(me, text): return text\n", idle="Idle")
    told = check(ini({"smsgw.plugins": "htpasswd allow idle"}))
    assert told.status == 3  # a method that is named like a hook, and not marked as one


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return 1 / 0", "division by zero"),
        ("pass", "should make a text of a text, and made None"),
        ("return b'abc'", "should make a text of a text, and made a value of type 'bytes'"),
        ("return '\\ud800'", "made a text with half of a surrogate pair"),
    ],
)
def test_a_transform_that_fails(ini: Ini, distribution: Install, body: str, why: str) -> None:
    source = f"from smsgw.hookspecs import hookimpl\nclass Bad:\n    @hookimpl\n    def transform(self): {body}\n"
    distribution("acme", source, bad="Bad")
    told = check(ini({"smsgw.plugins": "htpasswd allow bad"}))
    assert lines(told, "error") == [f"plugins: bad fails to transform 'abc': {why}. Nothing can be sent; correct it."]


# The spool


@pytest.fixture
def spool(base_settings: dict[str, str]) -> Path:
    return Path(base_settings["smsgw.spool"])


def test_folders_that_the_simulator_makes(ini: Ini, spool: Path) -> None:
    shutil.rmtree(spool)
    told = check(ini({"smsgw.plugins": "htpasswd allow simulator"}), "--verbose")
    assert (told.status, lines(told, "error")) == (1, [])
    assert sum("the simulator makes it" in line for line in lines(told, "ok")) == 6


def test_what_others_linked_there_is_not_written_to(ini: Ini, spool: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("a" * 1000)
    trap = spool / "outgoing" / ".smsgw-check"
    for link in (trap.hardlink_to, trap.symlink_to):
        link(mine)
        assert check(ini()).status == 0
        assert mine.read_text() == "a" * 1000
        assert not os.path.lexists(trap)


def test_little_room(tmp_path: Path, ini: Ini) -> None:
    with Tmpfs(tmp_path / "small", "50m") as small:
        make_spool(small.outside / "spool")
        path = ini({"smsgw.spool": str(small.path / "spool")})
        told = executable("check", path, enter=small.enter)
    (line,) = lines(told, "warning")
    assert "MiB left. Make room. These are messages of over 30 days: find " in line
    assert told.status == 1


def test_as_another_user(ini: Ini, spool: Path) -> None:
    """Root is warned, others are told what is not theirs, and the gateway's user is told nothing."""
    nobody, games = as_user("nobody"), as_user("games")
    for folder in (spool, *spool.iterdir()):
        shutil.chown(folder, "nobody")
    path = ini()
    assert lines(executable("check", path), "warning") == [
        "spool: this is root, who can do what the gateway's user perhaps cannot. Run it as the gateway's user."
    ]
    assert executable("check", path, enter=nobody) == Ended(0, "OK (0 errors, 0 warnings)\n", "")
    state = spool / "outgoing" / ".smsgw"
    state.mkdir(0o700)
    shutil.chown(state, "nobody")
    (line,) = lines(executable("check", path), "warning")
    assert line.startswith(f"spool: this is root, and the gateway runs as nobody, to whom {state} belongs. Run it as")
    assert executable("check", path, enter=nobody).status == 0
    told = executable("check", path, enter=games)
    assert told.status == 2
    for said in ("this is games, and the gateway runs as nobody", "games cannot make a file"):
        assert any(said in line for line in lines(told, "error")), said


# smsd


def conf(ini: Ini, smsd: Smsd) -> Path:
    return ini({"smsgw.spool": None, "smsgw.smsd_conf": str(smsd.conf)})


def test_a_real_smsd(tmp_path: Path, ini: Ini) -> None:
    folder = tmp_path / "smsd"
    (folder / "stats").mkdir(parents=True)
    with Smsd(folder, extra=f"stats = {folder / 'stats'}\nstatus_interval = 1\n") as smsd:
        path = conf(ini, smsd)
        status = folder / "stats" / "status"
        eventually(status.exists)
        os.utime(status, (0, 0))  # it is old where nothing has changed
        told = check(path, "-v")
        assert told.status == 0, told.out
        (runs,) = (line for line in lines(told, "ok") if line.startswith(f"smsd: smsd runs as {OURS} with the group"))
        assert runs.endswith(f", process {smsd.pid}.")
        assert "smsd: smsd has the modems GSM1 and no queues." in lines(told, "ok")
        assert any("who can read files of the mode 0660" in line for line in lines(told, "ok"))
        smsd.kill()
        (line,) = lines(check(path), "error")
        assert line.startswith(f"smsd: smsd does not run: {folder}/smsd.pid names no process of it;")


def test_the_system_s_smsd_is_found_by_its_spool(tmp_path: Path, ini: Ini, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the ini file has ``smsgw.spool``, and not smsd's own file."""
    (tmp_path / "smsd").mkdir()
    smsd = Smsd(tmp_path / "smsd")
    smsd.modem.unplug()
    monkeypatch.setattr("smsgw.spool.daemon.CONF", smsd.conf)
    assert check(ini()).status == 0
    told = check(ini({"smsgw.spool": str(smsd.spool)}))
    assert any("smsd does not run" in line for line in lines(told, "error"))


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ('# USER="root"\nUSER="nobody"\nGROUP="games"\nPIDFILE="/run/of/debian"\n', "nobody with the group games"),
        ('USER="nobody"\n', "nobody with the group nogroup"),
        ("USER='no-such-user'\n", "root with the group"),
        ("USER='\n", "root with the group"),
    ],
)
def test_what_debian_would_start(
    tmp_path: Path, ini: Ini, monkeypatch: pytest.MonkeyPatch, defaults: str, said: str
) -> None:
    """Its default file counts more than smsd's own."""
    (tmp_path / "smsd").mkdir()
    smsd = Smsd(tmp_path / "smsd", extra="user = root\n")
    smsd.modem.unplug()
    monkeypatch.setattr("smsgw.spool.daemon.CONF", smsd.conf)
    monkeypatch.setattr("smsgw.spool.daemon.DEFAULTS", tmp_path / "defaults")
    (tmp_path / "defaults").write_text(defaults)
    (error,) = (line for line in lines(check(conf(ini, smsd)), "error") if "does not run" in line)
    pidfile = "/run/of/debian" if "PIDFILE" in defaults else smsd.conf.with_name("smsd.pid")
    assert error.startswith(f"smsd: smsd does not run: {pidfile} names no process of it; it would run as {said}")


def test_a_pid_of_somebody_else(tmp_path: Path, ini: Ini) -> None:
    folder = tmp_path / "smsd"
    folder.mkdir()
    smsd = Smsd(folder)
    smsd.modem.unplug()
    (folder / "smsd.pid").write_text(f"{os.getpid()}\n")
    told = check(conf(ini, smsd))
    assert any("smsd does not run" in line for line in lines(told, "error"))


@pytest.mark.parametrize(
    ("old", "new", "level", "said"),
    [
        ("notifier = yes\n", "notifier = no\n", "warning", "has no 'notifier = yes'"),
        ("report = {spool}/report\n", "", "warning", "names no folder for 'report'"),
        ("failed = {spool}/failed\n", "", "warning", "names no folder for 'failed'"),
        ("devices = GSM1\n", "devices = GSM1\nkeep_filename = no\n", "stops", "keep_filename"),
        ("devices = GSM1\n", "devices = GSM1\noutgoing_utf8 = no\n", "stops", "outgoing_utf8"),
    ],
)
def test_smsd_s_settings(tmp_path: Path, ini: Ini, old: str, new: str, level: str, said: str) -> None:
    (tmp_path / "smsd").mkdir()
    smsd = Smsd(tmp_path / "smsd")
    smsd.modem.unplug()
    text = smsd.conf.read_text()
    old, new = old.format(spool=smsd.spool), new.format(spool=smsd.spool)
    assert old in text
    smsd.conf.write_text(text.replace(old, new, 1).replace(str(smsd.modem.device), "/dev/null"))
    told = check(conf(ini, smsd))
    assert any(said in line for line in lines(told, level)), told.out


def test_files_that_smsd_cannot_read(tmp_path: Path, ini: Ini) -> None:
    """smsd of the user ``nobody``, in whose group the spool is not."""
    (tmp_path / "smsd").mkdir()
    smsd = Smsd(tmp_path / "smsd", extra="user = nobody\n")
    smsd.modem.unplug()
    smsd.conf.write_text(smsd.conf.read_text().replace(str(smsd.modem.device), "/dev/null"))
    outgoing = smsd.spool / "outgoing"
    nobody = "spool: smsd would run as nobody with the group nogroup, who"

    def errors(mode: str) -> list[str]:
        path = ini({"smsgw.spool": None, "smsgw.smsd_conf": str(smsd.conf), "smsgw.file_mode": mode})
        return [line for line in lines(check(path), "error") if "does not run" not in line]

    unreadable, stuck = errors("0660")
    assert unreadable.startswith(f"{nobody} cannot read files of the mode 0660, the user {OURS} and the group")
    assert unreadable.endswith(
        f". As root: adduser {OURS} nogroup, set smsgw.file_group = nogroup, and restart the gateway."
    )
    assert stuck.startswith(f"{nobody} cannot take files out of {outgoing}.")
    assert stuck.endswith(f"As root: chown nobody {outgoing}")
    outgoing.chmod(0o777)
    assert errors("0664") == []
    (outgoing / "a\x1b[31m;b").write_text("To: 112\n\nHi")
    (outgoing / "a\x1b[31m;b").chmod(0o600)
    (line,) = errors("0664")
    assert line.startswith(rf"{nobody} cannot read {outgoing}/a\x1b[31m;b: it is not sent, and may hold up")
    assert line.endswith(rf" && chmod u+rw '{outgoing}/a\x1b[31m;b'")


def test_the_owner_of_outgoing_may_read_by_an_access_list(tmp_path: Path, ini: Ini) -> None:
    """Where the mode lets the group read."""
    if os.geteuid():
        pytest.skip("root, who can be others")
    (tmp_path / "smsd").mkdir()
    smsd = Smsd(tmp_path / "smsd", extra="user = nobody\n")
    smsd.modem.unplug()
    smsd.conf.write_text(smsd.conf.read_text().replace(str(smsd.modem.device), "/dev/null"))
    shutil.chown(smsd.spool / "outgoing", "nobody")

    def errors(mode: str) -> list[str]:
        path = ini({"smsgw.spool": None, "smsgw.smsd_conf": str(smsd.conf), "smsgw.file_mode": mode})
        return [line for line in lines(check(path), "error") if "does not run" not in line]

    assert errors("0660") == errors("0640") == []
    (line,) = errors("0600")
    assert line.endswith(". As root: set smsgw.file_mode = 0660, and restart the gateway.")


@pytest.mark.parametrize(
    ("owner", "group", "mode", "may"),
    [
        (1, 1, 0o600, False),
        (1, 1, 0o660, False),
        (1, 7, 0o660, True),
        (1, 7, 0o640, True),
        (1, 8, 0o604, True),
        (1, 7, 0o604, False),
        (5, 1, 0o400, True),
        (5, 7, 0o040, False),
    ],
)
def test_who_may_read(owner: int, group: int, mode: int, may: bool) -> None:
    assert Daemon(5, frozenset({7})).may_read(owner, group, mode) is may
    assert Daemon(5, frozenset()).may_read(owner, group, mode, {5} if group == 7 else {6}) is may
    assert Daemon(0, frozenset()).may_read(owner, group, mode)


def test_who_may_take_files_away(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    found = tmp_path.stat()
    assert found.st_mode & stat.S_ISVTX
    assert not Daemon(65534, frozenset({65534})).may_change(found)
    assert Daemon(0, frozenset()).may_change(found)
    tmp_path.chmod(0o777)
    assert Daemon(65534, frozenset({65534})).may_change(tmp_path.stat())
    tmp_path.chmod(0o770)
    assert not Daemon(65534, frozenset({65534})).may_change(tmp_path.stat())
    assert Daemon(65534, frozenset({found.st_gid})).may_change(tmp_path.stat())


# The store

STORING = """
import sqlalchemy
from smsgw.store import open_store

class Keep:
    def includeme(self, config):
        open_store(config.registry, sqlalchemy.MetaData())
"""


def test_the_store(ini: Ini, distribution: Install, tmp_path: Path) -> None:
    distribution("acme", STORING, keep="Keep")
    plugins = {"smsgw.plugins": "htpasswd allow keep"}
    file = tmp_path / "store.sqlite3"

    def look(url: str) -> Ended:
        path = ini(plugins | {"smsgw.store": url})
        path.chmod(0o600)
        return check(path, "-v")

    told = look(f"sqlite:///{file}")
    assert told.status == 0
    assert f"store: {file} is not there yet; the gateway makes it when it is first needed." in lines(told, "ok")
    assert not file.exists()
    file.touch(0o600)
    assert "store: the database of smsgw.store can be opened and written to." in lines(look(f"sqlite:///{file}"), "ok")
    file.write_text("this is no database, and long enough to show that it is none" * 10)
    (line,) = lines(look(f"sqlite:///{file}"), "error")
    assert "file is not a database" in line
    assert "/nonexistent is not there" in lines(look("sqlite:////nonexistent/store.sqlite3"), "error")[0]
    told = look(f"postgresql://smsgw:Gehe!m@127.0.0.1:{free_port()}/smsgw")
    line = lines(told, "error")[0]
    assert line.startswith("store: the database of smsgw.store is out of service: ")
    assert "Gehe!m" not in told.out
    assert look("mysql://localhost/smsgw").status == 3


def test_a_store_of_several_machines(ini: Ini, distribution: Install, postgresql: Postgresql) -> None:
    distribution("acme", STORING, keep="Keep")
    url = postgresql.create()
    path = ini({"smsgw.plugins": "htpasswd allow keep", "smsgw.store": url})
    path.chmod(0o600)
    told = check(path, "-v")
    assert told.status == 0, told.out
    assert "store: the database of smsgw.store can be opened and written to." in lines(told, "ok")
    name = url.split("/")[3].partition("?")[0]
    postgresql.sql(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    (line,) = lines(check(path), "error")
    assert line.startswith("store: the database of smsgw.store can be read only. Name the one")
    path = ini({"smsgw.plugins": "htpasswd allow keep", "smsgw.store": postgresql.create()})
    assert check(path).status == 0


def test_a_store_of_another_user(ini: Ini, distribution: Install, spool: Path) -> None:
    if os.geteuid():
        pytest.skip("root, who can be others")
    distribution("acme", STORING, keep="Keep")
    state = spool / "outgoing" / ".smsgw"
    state.mkdir(0o700)
    shutil.chown(state, "nobody")
    file = state / "store.sqlite3"
    file.touch(0o600)
    told = check(ini({"smsgw.plugins": "htpasswd allow keep"}))
    assert lines(told, "error") == [
        f"store: {file} belongs to root, and the gateway runs as nobody. As root: chown nobody {file}"
    ]
    shutil.chown(file, "nobody")
    told = check(ini({"smsgw.plugins": "htpasswd allow keep"}), "-v")
    assert any("was not opened" in line for line in lines(told, "ok"))
    assert sorted(path.name for path in state.iterdir()) == ["store.sqlite3", "store.sqlite3-journal"]


def test_the_journal(ini: Ini, tmp_path: Path) -> None:
    """It has a database of its own, in a folder that the gateway makes."""
    file = tmp_path / "journal" / "store.sqlite3"

    def look(folder: Path = tmp_path) -> Ended:
        path = ini({"smsgw.store": f"sqlite:///{folder / 'store.sqlite3'}"})
        path.chmod(0o600)
        return check(path, "-v")

    told = look()
    assert told.status == 0
    assert f"store: {file} is not there yet; the gateway makes it when it is first needed." in lines(told, "ok")
    assert not file.parent.exists()
    assert lines(look(tmp_path / "nowhere"), "error") == [
        f"store: {tmp_path / 'nowhere'} is not there, or cannot be written to."
        f" As root: install -d -o {OURS} -m 700 {tmp_path / 'nowhere'}"
    ]
    file.parent.touch()
    (line,) = lines(look(), "error")
    assert line.startswith(f"store: {file.parent} is not there, or cannot be written to. As root: install -d")
    file.parent.unlink()
    file.parent.mkdir()
    file.touch()
    told = look()
    assert told.status == 0
    assert f"store: the database {file} can be opened and written to." in lines(told, "ok")
    file.write_text("this is no database, and long enough to show that it is none" * 10)
    assert lines(look(), "error") == [
        f"store: the database {file} is out of service: file is not a database."
        " Start the gateway: it puts that file aside, and makes the journal anew from the spool's files."
    ]


def test_a_journal_of_another_user(ini: Ini, spool: Path) -> None:
    if os.geteuid():
        pytest.skip("root, who can be others")
    state = spool / "outgoing" / ".smsgw"
    file = state / "journal" / "store.sqlite3"
    file.parent.mkdir(0o700, parents=True)
    for path in (state, file.parent):
        path.chmod(0o700)
        shutil.chown(path, "nobody")
    file.touch(0o400)
    remedy = f"As root: chown nobody {file}"
    assert lines(check(ini()), "error") == [f"store: {file} belongs to root, and the gateway runs as nobody. {remedy}"]
    follow(remedy)
    told = executable("check", ini(), enter=as_user("nobody"))
    (line,) = [line for line in lines(told, "error") if line.startswith("store: ")]
    assert line == f"store: the database {file} cannot be written to. As root: chmod u+rw {file}"
    follow(line)
    told = executable("check", ini(), enter=as_user("nobody"))
    assert not [line for line in lines(told, "error") if line.startswith("store: ")]


def follow(line: str) -> None:
    """Do what a remedy says."""
    subprocess.run(["sh", "-c", line.partition("As root: ")[2]], check=True)


def test_little_room_for_databases(tmp_path: Path, ini: Ini) -> None:
    with Tmpfs(tmp_path / "small", "4m", 100_000) as small:
        (small.outside / "journal").mkdir()
        path = ini({"smsgw.store": f"sqlite:///{small.path}/store.sqlite3"})
        told = executable("check", path, enter=small.enter)
    (line,) = lines(told, "error")
    assert line.startswith(f"spool: the file system of {small.path / 'journal'} has ")
    assert line.endswith(" MiB left. Make room there, or put smsgw.store elsewhere.")


# The server


def test_a_gateway_that_runs(tmp_path: Path, ini: Ini, base_settings: dict[str, str], spool: Path) -> None:
    (tmp_path / "server").mkdir()
    with Server(tmp_path / "server", base_settings) as server:
        path = ini({}, {"listen": f"127.0.0.1:{server.port}"})
        told = check(path, "-v")
        assert told.status == 0, told.out
        assert f"server: the gateway answers on 127.0.0.1:{server.port}, and could take a message." in lines(told, "ok")
        shutil.move(spool, spool.with_name("away"))
        assert any("answers 503" in line for line in lines(check(path), "error"))
        shutil.move(spool.with_name("away"), spool)
        assert check(path).status == 0


def test_a_port_that_only_root_may_have(ini: Ini) -> None:
    """In a network of its own, where that begins at 1024."""
    path = ini({}, {"listen": "0.0.0.0:80"})
    told = executable("check", path, enter=["unshare", "--net", *as_user("nobody")])
    assert any("server: only root may listen on 0.0.0.0:80" in line for line in lines(told, "error")), (
        told.out + told.err
    )


@settings(max_examples=at_length(120, 15))
@given(
    st.dictionaries(
        st.sampled_from(
            [*(f"smsgw.{node.name}" for node in schema_of(Settings).children), "smsgw.htpasswd.path", "pyramid.x"]
        ),
        st.text(st.characters(codec="utf-8"), max_size=20)
        | st.sampled_from(["/", "0", "/dev/null", "/proc/self", "%"]),
        max_size=3,
    ),
    st.dictionaries(
        st.sampled_from(["listen", "threads", "host", "port", "trusted_proxy", "unix_socket", "sockets"]),
        st.sampled_from(["", "0", "x", "127.0.0.1:0", "[::1]:0", "/tmp/none", "*", "a:b:c", "\x1b"]),
        max_size=2,
    ),
)
def test_whatever_stands_in_the_ini_file(ini: Ini, app: dict[str, str], server: dict[str, str | None]) -> None:
    told = check(ini(app, server | {"listen": server.get("listen", "127.0.0.1:0")}))
    assert "a bug" not in told.out
    assert told.status in range(4)
    assert all(character.isprintable() or character == "\n" for character in told.out + told.err)


@settings(max_examples=at_length(120, 15))
@given(
    st.lists(
        st.sampled_from(
            [
                *("devices = GSM1, X*1-3", "pidfile = /proc", "pidfile = /dev/null", "stats = /dev/null"),
                *("user = nobody", "user = \x1b", "sent = relative", "checked =", "outgoing =", "[queues]"),
                *("A = /nonexistent", "[GSM1]", "device = \x1b[2J", "queues = A, modemname", "[providers", "="),
                *("trust_outgoing", "report = /proc/1"),
            ]
        ),
        max_size=12,
    )
)
def test_whatever_stands_in_smsd_s_file(ini: Ini, tmp_path: Path, spool: Path, lines_of_conf: list[str]) -> None:
    conf = tmp_path / "smsd.conf"
    conf.write_text("\n".join([f"outgoing = {spool}/outgoing", f"checked = {spool}/checked", *lines_of_conf]))
    told = check(ini({"smsgw.spool": None, "smsgw.smsd_conf": str(conf)}))
    assert "a bug" not in told.out
    assert told.status in range(4)
    assert all(character.isprintable() or character == "\n" for character in told.out + told.err)


def test_production_ini(production: Callable[[str], Path]) -> None:
    """As an operator copies it, there is nothing wrong with it but that there is no smsd."""
    path = production(PRODUCTION + "\n# /var/spool/sms file_group = smsd")
    told = check(path)
    assert {line.partition(":")[0] for level in ("warning", "error", "stops") for line in lines(told, level)} <= {
        "smsd",
        "spool",
    } | {"settings" if "htpasswd" in told.out else "spool"}
    assert not lines(told, "stops")


def test_without_a_server(ini: Ini) -> None:
    """As gunicorn needs none."""
    path = ini()
    path.write_text(path.read_text().partition("[server:main]")[0])
    assert check(path).status == 0


# How it is told


def test_json(ini: Ini) -> None:
    told = check(ini({"smsgw.fsync": "false"}), "--json")
    found = json.loads(told.out)
    assert found["status"] == told.status == 1
    assert {frozenset(finding) for finding in found["findings"]} == {
        frozenset({"level", "topic", "sentence", "remedy"})
    }
    assert [finding["topic"] for finding in found["findings"] if finding["level"] == "warning"] == ["settings"]
    found = json.loads(smsgw("check", "/nonexistent", "--json").out)
    assert found["status"] == 3
    assert found["findings"][0]["sentence"].startswith("there is no file '/nonexistent'")


def test_wrong_arguments_are_unknown_to_monitoring(ini: Ini) -> None:
    assert smsgw("check", "--no-such-option").status == 3
    assert smsgw("check", ini(), "another").status == 3


def test_where_the_ini_file_is(ini: Ini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ini(name="production.ini")
    monkeypatch.chdir(tmp_path)
    assert smsgw("check").status == 0
    monkeypatch.chdir("/")
    assert smsgw("check").status == 3
    assert smsgw("check", env={"SMSGW_INI": str(path)}).status == 0


# What waits for ever


class Asleep:
    """Never transforms anything."""

    @hookimpl
    def transform(self, text: str) -> str:
        threading.Event().wait()
        return text


def test_a_plugin_that_never_answers(ini: Ini, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw.cli.check.settings.TIMEOUT", 0.5)
    with offered(asleep=Asleep):
        told = check(ini({"smsgw.plugins": "htpasswd allow asleep"}))
    assert any("asleep fails to transform 'abc': it takes more than" in line for line in lines(told, "error"))


def test_a_server_that_never_answers(ini: Ini, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends a byte now and then, so that no limit of a socket is reached."""
    monkeypatch.setattr("smsgw.cli.check.settings.TIMEOUT", 1.0)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                while not done.wait(0.2):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        port = server.getsockname()[1]
        told = check(ini({}, {"listen": f"127.0.0.1:{port}"}))
        (line,) = (line for line in lines(told, "error") if line.startswith("server"))
        done.set()
        thread.join()
    assert line.startswith(f"server: what listens on 127.0.0.1:{port} does not answer within 1 seconds.")


def test_modems_of_an_smsd_that_runs(tmp_path: Path, ini: Ini) -> None:
    folder = tmp_path / "smsd"
    folder.mkdir()
    with Smsd(folder, modems=2) as smsd:
        smsd.modems[1].unplug()
        told = check(conf(ini, smsd))
        (line,) = (line for line in lines(told, "warning") if "GSM2" in line)
        assert line.startswith("smsd: the modem GSM2 sends nothing: its device ")
        smsd.modems[0].unplug()
        told = check(conf(ini, smsd))
        assert len([line for line in lines(told, "error") if "sends nothing" in line]) == 2
