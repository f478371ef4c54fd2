"""``htpasswd``: against files that Apache's own program wrote."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.security import Denied

from smsgw.model import ConfigurationError, Credentials, Identity
from smsgw_plugins.htpasswd import Htpasswd
from tests.conftest import sha

SCHEMES = {"bcrypt": ["-B", "-C", "5"], "apr1": ["-m"], "sha": ["-s"], "sha256-crypt": ["-2"], "sha512-crypt": ["-5"]}


@pytest.fixture(scope="module")
def apache() -> str:
    program = shutil.which("htpasswd")
    if program is None:
        pytest.skip("htpasswd (Debian package apache2-utils) is not installed")
    return program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.touch()
    return path


def ask(plugin: Htpasswd, userid: str, secret: str, scheme: str = "Basic") -> Identity | Denied | None:
    return plugin.authenticate(Credentials(scheme, userid, secret, "127.0.0.1"))


def user(userid: str) -> Identity:
    return Identity(userid, credential=f"htpasswd:{userid}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_apache_wrote(apache: str, path: Path, scheme: str) -> None:
    subprocess.run([apache, "-b", *SCHEMES[scheme], path, "lvv", "SecretPAss"], check=True, capture_output=True)
    plugin = Htpasswd(str(path))
    for _ in range(2):
        assert ask(plugin, "lvv", "SecretPAss") == user("lvv")
        for wrong in ("", "secretpass", "SecretPAss ", "x" * 100, "x" * 5000, "\0", "SecretPAss\0", "\ud800"):
            assert isinstance(ask(plugin, "lvv", wrong), Denied)
        assert ask(plugin, "LVV", "SecretPAss") is None
        assert ask(plugin, "", "SecretPAss") is None
        assert ask(plugin, "lvv", "SecretPAss", scheme="Bearer") is None


@pytest.mark.parametrize("scheme", ["-p", "-d"])
def test_plain_text_and_des_are_refused(apache: str, path: Path, scheme: str) -> None:
    subprocess.run([apache, "-b", scheme, path, "lvv", "SecretPA"], check=True, capture_output=True)
    assert ask(Htpasswd(str(path)), "lvv", "SecretPA") is None


@pytest.mark.parametrize(
    "line",
    [
        "lvv:",
        "lvv",
        "",
        ":x",
        "# lvv:x",
        "lvv:SecretPAss",
        "lvv:$2y$05$short",
        "lvv:{SHA}!",
        "lvv:$2y$",
        "lvv:$2y$xx$abc",
        "lvv:$5$rounds=abc$x$y",
        "lvv:$2y$31$malformed",
    ],
)
def test_broken_lines_let_nobody_in(path: Path, line: str) -> None:
    path.write_text(f"{line}\nops:{sha('Alarm!ng')}\n")
    plugin = Htpasswd(str(path))
    for secret in ("", "SecretPAss", "x", "!"):
        assert not isinstance(ask(plugin, "lvv", secret), Identity)
        assert not isinstance(ask(plugin, "", secret), Identity)
    assert ask(plugin, "ops", "Alarm!ng") == user("ops")


def test_comments_are_no_users(path: Path) -> None:
    path.write_text(f"#lvv:{sha('SecretPAss')}\n  # ops:{sha('Alarm!ng')}\nroot:{sha('Adm1nist')}\n")
    plugin = Htpasswd(str(path))
    for userid, secret in (("#lvv", "SecretPAss"), ("lvv", "SecretPAss"), ("# ops", "Alarm!ng"), ("ops", "Alarm!ng")):
        assert ask(plugin, userid, secret) is None
    assert ask(plugin, "root", "Adm1nist") == user("root")


def test_of_a_user_who_stands_there_twice_the_first_counts(path: Path) -> None:
    """As Apache does."""
    path.write_text(f"lvv:{sha('first')}\nops:{sha('Alarm!ng')}\nlvv:{sha('second')}\n")
    plugin = Htpasswd(str(path))
    assert ask(plugin, "lvv", "first") == user("lvv")
    assert isinstance(ask(plugin, "lvv", "second"), Denied)


def test_changes_take_effect_at_once(path: Path) -> None:
    plugin = Htpasswd(str(path))
    for password in map(str, range(50)):
        path.write_text(f"lvv:{sha(password)}\n")
        assert ask(plugin, "lvv", password) == user("lvv")
        assert isinstance(ask(plugin, "lvv", password + "x"), Denied)
    replacement = path.with_name("fresh")
    replacement.write_text("")
    replacement.rename(path)
    assert ask(plugin, "lvv", "49") is None


def test_bytes_that_are_no_text_harm_nobody_else(path: Path) -> None:
    path.write_bytes(b"\xff\xfe:x\n" + f"lvv:{sha('SecretPAss')}\n".encode())
    assert ask(Htpasswd(str(path)), "lvv", "SecretPAss") == user("lvv")


def test_a_password_that_was_right_is_not_hashed_again(apache: str, path: Path) -> None:
    subprocess.run([apache, "-bB", "-C", "10", path, "lvv", "SecretPAss"], check=True, capture_output=True)
    plugin = Htpasswd(str(path))
    times = []
    for _ in range(2):
        begun = time.process_time()
        assert ask(plugin, "lvv", "SecretPAss") == user("lvv")
        times.append(time.process_time() - begun)
    assert times[1] < times[0] / 10


def test_a_file_that_vanishes_is_out_of_service(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(f"lvv:{sha('SecretPAss')}\n")
    plugin = Htpasswd(str(path))
    path.unlink()
    with pytest.raises(HTTPServiceUnavailable):
        ask(plugin, "lvv", "SecretPAss")
    assert f"{path} cannot be read" in caplog.text
    path.write_text(f"lvv:{sha('SecretPAss')}\n")
    assert ask(plugin, "lvv", "SecretPAss") == user("lvv")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"smsgw\.htpasswd\.path.*there is no file .*htpasswd -B -c"):
        Htpasswd(str(tmp_path / "none"))


def test_wrong_answers_cost_the_same_whoever_asks(apache: str, path: Path) -> None:
    """Compared in processor time: one bcrypt check is hundreds of times the noise."""
    for userid, cost in (("slow", "11"), ("slower", "12")):
        subprocess.run([apache, "-bB", "-C", cost, path, userid, "word"], check=True, capture_output=True)
    with path.open("a") as stream:
        stream.write(f"fast:{sha('word')}\n")
    plugin = Htpasswd(str(path))

    def cost(userid: str, secret: str) -> float:
        begun = time.process_time()
        assert not isinstance(ask(plugin, userid, secret), Identity)
        return time.process_time() - begun

    # What else runs on a core makes it slower, and never faster.
    asked = [("slow", "wrong"), ("slower", "wrong"), ("fast", "wrong"), ("nobody", "word")]
    times = [min(costs) for costs in zip(*([cost(*each) for each in asked] for _ in range(4)), strict=True)]
    assert max(times) < 1.4 * min(times)


@given(st.text(), st.text())
def test_any_credentials(users: Htpasswd, userid: str, secret: str) -> None:
    answer = ask(users, userid, secret)
    assert isinstance(answer, Identity) == ((userid, secret) == ("lvv", "SecretPAss"))


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Htpasswd:
    path = tmp_path_factory.mktemp("users") / "users"
    path.write_text(f"lvv:{sha('SecretPAss')}\n:{sha('')}\nnobody:{sha('')}\n")
    return Htpasswd(str(path))


def test_nothing_of_a_secret_is_shown(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("lvv:PlainSecret\n")
    plugin = Htpasswd(str(path))
    ask(plugin, "lvv", "PlainSecret")
    assert "PlainSecret" not in caplog.text + repr(plugin) + repr(Credentials("Basic", "lvv", "PlainSecret", ""))
    assert "lvv" in caplog.text


def test_through_http(gateway: Any) -> None:
    gateway.send()
    gateway.app.authorization = ("Basic", ("lvv", "wrong"))
    assert gateway.app.get("/api/v1.0/sms/sent/", status=401).json["error"]


def test_a_user_holds_as_long_as_the_file_has_them(path: Path) -> None:
    path.write_text(f"lvv:{sha('SecretPAss')}\nops:{sha('Alarm!ng')}\n")
    plugin = Htpasswd(str(path))
    assert plugin.holds("htpasswd:lvv") is True
    assert plugin.holds("htpasswd:nobody") is False
    assert plugin.holds("token:lvv") is None
    path.write_text(f"lvv:{sha('another')}\n")
    assert (plugin.holds("htpasswd:lvv"), plugin.holds("htpasswd:ops")) == (True, False)
    path.unlink()
    with pytest.raises(HTTPServiceUnavailable):
        plugin.holds("htpasswd:lvv")
