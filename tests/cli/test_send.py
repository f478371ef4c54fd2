"""``smsgw send``: through the corridor, as a user, in a process of its own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Ini, as_user, executable, smsgw
from tests.conftest import Gateway

Install = Callable[..., None]
ID = r"smsgw\.http\.[0-9A-Z]{26}"


@pytest.fixture
def sent(gateway: Gateway) -> Callable[[], dict[str, str]]:
    """What lies in ``outgoing`` of a spool that a gateway runs on."""
    return lambda: {name: content.decode() for name, content in gateway.files().items()}


def test_a_message(ini: Ini, sent: Callable[[], dict[str, str]]) -> None:
    told = smsgw("send", ini(), "--user", "lvv", "--to", "+7 968 000-00-00", "Hi, Jack!")
    assert (told.status, told.err) == (0, "")
    ((id, content),) = sent().items()
    assert content == "To: 79680000000\nFrom: lvv\nAlphabet: UTF-8\n\nHi, Jack!"
    assert told.out.splitlines()[1].split() == [id, "+7", "968", "000-00-00"]
    assert told.out.splitlines()[2:] == ["", "parts     1 (GSM)", "text      Hi, Jack!"]


def test_every_option(ini: Ini, sent: Callable[[], dict[str, str]]) -> None:
    options = ["--queue", "OTHER", "--flash", "--high", "--validity", "60", "--no-report", "--to", "112", "--to", "911"]
    told = smsgw("send", ini(), "--user", "lvv", *options, stdin="Ж\n")
    assert told.status == 0
    assert len(sent()) == 2
    assert {content.partition("\n")[2] for content in sent().values()} == {
        "From: lvv\nAlphabet: UCS2\nQueue: OTHER\nFlash: yes\nPriority: HIGH\nValidity: 60 min\nReport: no\n\n\x04\x16"
    }
    assert {re.match(r"To: s(\d+)", content)[1] for content in sent().values()} == {"112", "911"}  # type: ignore[index]


def test_for_later(ini: Ini, gateway: Gateway, sent: Callable[[], dict[str, str]]) -> None:
    then = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    told = smsgw("send", ini(), "--user", "lvv", "--to", "112", "--at", then.isoformat(), "Hi")
    assert (told.status, sent()) == (0, {})
    (path,) = (gateway.state / "scheduled").glob("*/*")
    assert f"\nX-Send-At: {then.isoformat().replace('+00:00', 'Z')}\n" in path.read_text()
    told = smsgw("check", ini(), "--verbose")
    assert f"1 messages wait in {gateway.state / 'scheduled'} until their time" in told.out
    assert f"0 messages wait in {gateway.state / 'waiting'} until smsd has room" in told.out


def test_a_time_that_is_none(ini: Ini, sent: Callable[[], dict[str, str]]) -> None:
    for written in ("tomorrow", "", "2026-12-01", "2026-12-01T08:00:00", "2026-13-01T08:00:00Z"):
        told = smsgw("send", ini(), "--user", "lvv", "--to", "112", "--at", written, "Hi")
        assert (told.status, sent()) == (2, {})
        assert "'--at': should be a time such as 2026-12-01T08:00:00Z" in told.err


def test_a_rehearsal(ini: Ini, sent: Callable[[], dict[str, str]]) -> None:
    told = smsgw("send", ini(), "--user", "lvv", "--to", "112", "--dry-run", "Hi")
    assert told.status == 0
    assert told.out.endswith("text      Hi\n\nNothing was sent.\n")
    assert sent() == {}


def test_policies_and_transforms_are_the_user_s(ini: Ini, sent: Callable[[], dict[str, str]]) -> None:
    path = ini(
        {
            "smsgw.plugins": "htpasswd allow whitelist transliterate signature",
            "smsgw.whitelist.numbers": "lvv: 112\n@alarms: 911",
            "smsgw.signature.lines": "@alarms: Alarm centre",
        }
    )
    told = smsgw("send", path, "--user", "lvv", "--to", "112", "--to", "911", "It’s me")
    assert told.status == 1
    assert re.search(rf"^{ID} +112\n- +911 +forbidden$", told.out, re.M)
    assert [content.rpartition("\n")[2] for content in sent().values()] == ["It's me"]
    told = smsgw("send", path, "--user", "lvv", "--groups", "alarms", "--to", "911", "--dry-run", "It’s me")
    assert told.status == 0
    assert r"text      It's me\nAlarm centre" in told.out
    told = smsgw("send", path, "--user", "lvv", "--to", "911", "Hi")
    assert (told.status, told.out) == (1, "")
    assert told.err == "Error: You may not send to any of these numbers\n911: forbidden\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "nobody"], "There is no valid number to send to\nnobody: not a phone number"),
        (["--to", "112", "--at", "2099-01-01T00:00:00Z"], "send_at should be at most 400 days ahead"),
        (["--to", "112", "--validity", "0"], "validity should be 1 to 635040 minutes"),
        (["--to", "112", "--queue", "\x1b]0;x"], "queue should be at most 99 characters"),
    ],
)
def test_what_is_refused(ini: Ini, sent: Callable[[], dict[str, str]], arguments: list[str], said: str) -> None:
    told = smsgw("send", ini(), "--user", "lvv", *arguments, "Hi")
    assert (told.status, told.out) == (1, "")
    assert said in told.err
    assert "\x1b" not in told.err
    assert sent() == {}


PLUGINS = """
from pyramid.httpexceptions import HTTPServiceUnavailable
from smsgw.hookspecs import hookimpl
from smsgw.model import TextRefused, OverLimit, TooMany, Unavailable


class Frugal:
    @hookimpl(wrapper=True)
    def deliver(self, submission):
        match submission.messages[0].content.text:
            case "many":
                raise TooMany(60, "At most one a minute")
            case "too many":
                raise OverLimit(60, "At most one at once")
            case "down":
                raise Unavailable("The gateway's database is out of service")
            case "bug":
                raise ZeroDivisionError("division by zero")
            case "503":
                raise HTTPServiceUnavailable("away")
        return (yield)

    @hookimpl
    def transform(self, text):
        if text == "template":
            raise TextRefused("names a template that there is not")
        return text
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("many", "At most one a minute (again in 60 seconds)"),
        ("too many", "At most one at once"),
        ("down", "The gateway's database is out of service"),
        ("bug", "a plugin failed: division by zero"),
        ("503", "Service Unavailable: away"),
        ("template", "text names a template that there is not"),
    ],
)
def test_what_plugins_refuse(
    ini: Ini, sent: Callable[[], dict[str, str]], distribution: Install, text: str, said: str
) -> None:
    distribution("acme", PLUGINS, frugal="Frugal")
    told = smsgw("send", ini({"smsgw.plugins": "htpasswd allow frugal"}), "--user", "lvv", "--to", "112", text)
    assert (told.status, told.err) == (1, f"Error: {said}\n")
    assert sent() == {}


@pytest.mark.parametrize("user", ["", "@alarms", "*", "a\nb", "x" * 100])
def test_who_is_no_user(ini: Ini, user: str) -> None:
    told = smsgw("send", ini(), "--user", user, "--to", "112", "Hi")
    assert told.status == 2
    assert "a userid has 1 to 99 bytes" in told.err


def test_groups_are_words(ini: Ini) -> None:
    assert smsgw("send", ini(), "--user", "lvv", "--groups", "a,,b", "--to", "112", "Hi").status == 2


def test_a_spool_on_which_no_gateway_has_run(ini: Ini, base_settings: dict[str, str]) -> None:
    told = smsgw("send", ini(), "--user", "lvv", "--to", "112", "Hi")
    state = Path(base_settings["smsgw.spool"]) / "outgoing" / ".smsgw"
    assert told.status == 1
    assert told.err == f"Error: {state} is not there; start the gateway once, which makes it, and try again\n"
    assert list(state.parent.iterdir()) == []


def test_as_another_user(ini: Ini, gateway: Gateway) -> None:
    """Nobody, and not even root, puts files among another user's."""
    games = as_user("games")
    arguments = ["send", str(ini()), "--user", "lvv", "--to", "112", "Hi"]
    told = executable(*arguments, enter=games)
    assert told.status == 1
    assert told.err == (
        "Error: the gateway runs as root, and this is games; run it as 'runuser -u root -- smsgw send ...'\n"
    )
    shutil.chown(gateway.state, "nobody")
    told = executable(*arguments)
    assert told.status == 1
    assert "the gateway runs as nobody, and this is root; run it as 'runuser -u nobody -- smsgw send ...'" in told.err
    assert gateway.files() == {}


def test_as_an_operator_runs_it(ini: Ini, sent: Callable[[], dict[str, str]]) -> None:
    told = executable("send", ini(), "--user", "lvv", "--to", "112", stdin="Жук".encode())
    assert (told.status, told.err) == (0, "")
    assert re.search(ID, told.out)
    assert len(sent()) == 1
