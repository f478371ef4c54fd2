"""``smsgw login``: what each plugin says, and what the user may do then."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable

import pytest

from tests.cli.conftest import SMSGW, Ended, Ini, executable, smsgw

Install = Callable[..., None]

BACKENDS = '''
from pyramid.httpexceptions import HTTPForbidden, HTTPServiceUnavailable
from pyramid.security import Allowed, Denied
from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials, Identity, Message, Unavailable


class Chain:
    """Answers by what is shown."""

    @hookimpl
    def authenticate(self, credentials):
        match credentials.secret:
            case "other":
                return None
            case "no":
                return Denied("not \\x1b[31mtoday, 100%")
            case "down":
                raise Unavailable("The directory is out of service") from OSError("connection refused")
            case "503":
                raise HTTPServiceUnavailable("away")
            case "403":
                raise HTTPForbidden("never")
            case "bug":
                return 1 / 0
            case "Gehe!m":
                raise ValueError(f"{credentials.secret} is too short")
            case "odd":
                return "lvv"
            case "bad":
                return Identity("@lvv")
            case token if credentials.scheme == "Bearer":
                return Identity("bot", frozenset({"machines"}))
        return Identity("Lvv", frozenset({"alarms", "ops"}))


class Rules:
    @hookimpl
    def permits(self, identity, permission, context):
        if isinstance(context, Message) and context.to == "79160000000":
            return Denied("abroad")
        return None
'''


@pytest.fixture
def chain(ini: Ini, distribution: Install) -> Callable[..., Ended]:
    """Log in where the plugin above stands before ``htpasswd``."""
    distribution("acme", BACKENDS, chain="Chain", rules="Rules")
    path = ini({"smsgw.plugins": "chain htpasswd rules allow", "smsgw.allow.admins": "@ops"})

    def login(secret: str, *arguments: str) -> Ended:
        return smsgw("login", path, *(arguments or ("lvv",)), stdin=secret + "\n")

    return login


def said(ended: Ended) -> dict[str, str]:
    """What each plugin said, without the time it took."""
    rows = [line.split(None, 3) for line in ended.out.partition("\n\n")[0].splitlines()[1:]]
    return {row[0]: " ".join(row[3:]) if row[2:3] == ["ms"] else " ".join(row[1:]) for row in rows}


@pytest.mark.parametrize(
    ("secret", "words", "outcome"),
    [
        ("no", r"no: not \x1b[31mtoday, 100%", "The user does not get in: 401."),
        (
            "down",
            "out of service: The directory is out of service (connection refused)",
            "Nobody else is asked, and the request ends with 503.",
        ),
        ("503", "out of service: away", "Nobody else is asked, and the request ends with 503."),
        ("403", "403 Forbidden: never", "The request ends with 403."),
        ("bug", "a bug: division by zero", "The request ends with 500: that plugin has a bug."),
        (
            "Gehe!m",
            "a bug: (the secret) is too short",
            "The request ends with 500: that plugin has a bug.",
        ),
        (
            "odd",
            "a bug: it should answer Identity, Denied or None, and answered a value of type 'str'",
            "The user does not get in (401): that plugin has a bug.",
        ),
        (
            "bad",
            "a bug: it answered with a userid that cannot be one, '@lvv'",
            "The user does not get in (401): that plugin has a bug.",
        ),
    ],
)
def test_the_chain_ends(chain: Callable[..., Ended], secret: str, words: str, outcome: str) -> None:
    told = chain(secret)
    assert said(told) == {"chain": words, "htpasswd": "not asked"}
    assert told.out.splitlines()[-1] == outcome
    assert told.status == 1


def test_nobody_knows_the_user(chain: Callable[..., Ended]) -> None:
    told = chain("other", "nobody")
    assert said(told) == {"chain": "not mine", "htpasswd": "not mine"}
    assert told.out.splitlines()[-1] == "Nobody knows these credentials: 401."
    assert told.status == 1


def test_the_next_is_asked(chain: Callable[..., Ended]) -> None:
    told = chain("other", "lvv")
    assert said(told) == {"chain": "not mine", "htpasswd": "no: wrong password"}


def test_plugins_before_are_asked_about_the_spelling_of_one_after_them(ini: Ini, distribution: Install) -> None:
    distribution("acme", BACKENDS.replace('"Lvv"', "credentials.userid.lower()"), chain="Chain")
    path = ini({"smsgw.plugins": "htpasswd chain allow"})
    told = smsgw("login", path, "LVV", stdin="right\n")
    assert [line.split(" ms  ")[1] for line in told.out.splitlines()[1:4]] == [
        "not mine",
        "lvv, in alarms, ops",
        "of lvv: no: wrong password",
    ]
    assert told.out.splitlines()[-1] == "The user does not get in: 401."
    assert told.status == 1
    told = smsgw("login", path, "Anna", stdin="right\n")
    assert said(told) == {"htpasswd": "of anna: not mine", "chain": "anna, in alarms, ops"}
    assert told.status == 0


def test_who_gets_in(chain: Callable[..., Ended]) -> None:
    told = chain("right", "lvv", "--to", "112")
    assert said(told) == {"chain": "Lvv, in alarms, ops", "htpasswd": "not asked"}
    assert "\nThe user gets in, as Lvv.\n" in told.out
    rows = [" ".join(line.split()) for line in told.out.splitlines()]
    assert rows[rows.index("may because") + 1 :] == [
        "send to 112 yes allow: every user may",
        "list messages yes allow: every user may",
        "read own messages yes allow: it is the user's own",
        "cancel own messages yes allow: it is the user's own",
        "delete own messages yes allow: an administrator may",
        "list everybody's yes allow: an administrator may",
        "read others' messages yes allow: an administrator may",
        "cancel others' messages yes allow: an administrator may",
        "delete others' messages yes allow: an administrator may",
    ]
    assert told.status == 0


def test_a_number_that_is_forbidden(chain: Callable[..., Ended]) -> None:
    told = chain("right", "lvv", "--to", "+7 916 000-00-00", "--to", "112")
    rows = [" ".join(line.split()) for line in told.out.splitlines()]
    assert "send to +7 916 000-00-00 no rules: abroad" in rows
    assert "send to 112 yes allow: every user may" in rows
    assert told.status == 1


def test_a_token(chain: Callable[..., Ended]) -> None:
    told = chain("anything", "--bearer")
    assert said(told)["chain"] == "bot, in machines"
    assert "delete own messages      no   nobody allows it" in told.out
    assert "anything" not in told.out + told.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a user, or ask for a token"),
        (("lvv", "--bearer"), "name a user, or ask for a token"),
        (("",), "no client can show"),
        (("a:b",), "no client can show"),
        (("a\x1bb",), "no client can show"),
        (("lvv", "--address", "localhost"), "'localhost' does not appear to be an IPv4 or IPv6 address"),
        (("lvv", "--to", "nobody"), "--to: not a phone number"),
    ],
)
def test_wrong_arguments(ini: Ini, arguments: tuple[str, ...], words: str) -> None:
    told = smsgw("login", ini(), *arguments, stdin="x")
    assert told.status == 2
    assert words in told.err


@pytest.mark.parametrize("secret", ["", "\0", "x" * 100_000, "Ж" * 1000, "\ud800".encode("utf-16", "surrogatepass")])
def test_any_password(ini: Ini, secret: str | bytes) -> None:
    told = smsgw("login", ini(), "lvv", stdin=secret)
    assert told.status in (1, 2)
    assert "Traceback" not in told.out + told.err


def test_it_is_no_guess(ini: Ini) -> None:
    """And leaves nothing behind."""
    path = ini({"smsgw.guesses_per_user": "1"})
    for _ in range(3):
        assert smsgw("login", path, "lvv", stdin="wrong").status == 1
    assert smsgw("login", path, "lvv", stdin="SecretPAss").status == 0
    assert list((path.parent / "spool" / "outgoing").iterdir()) == []


def test_the_password_is_not_shown_on_a_terminal(ini: Ini) -> None:
    here, there = pty.openpty()
    process = subprocess.Popen(
        [SMSGW, "login", str(ini()), "lvv"], stdin=there, stdout=there, stderr=there, start_new_session=True
    )
    os.close(there)
    seen = b""
    while b"Password: " not in seen:
        seen += os.read(here, 1000)
    os.write(here, b"SecretPAss\n")
    while True:
        try:
            chunk = os.read(here, 1000)
        except OSError:  # the other end is closed
            break
        seen += chunk
    assert process.wait(20) == 0
    os.close(here)
    assert b"The user gets in, as lvv." in seen
    assert b"SecretPAss" not in seen


def test_as_an_operator_runs_it(ini: Ini) -> None:
    told = executable("login", ini(), "lvv", stdin=b"SecretPAss\n")
    assert (told.status, told.err) == (0, "")


def test_credentials_that_only_a_request_can_show(ini: Ini, distribution: Install) -> None:
    source = "from smsgw.hookspecs import hookimpl\nclass Key:\n    @hookimpl\n    def find_credentials(self): pass\n"
    distribution("acme", source, key="Key")
    path = ini({"smsgw.plugins": "key htpasswd allow"})
    assert "key finds credentials of its own in requests" in smsgw("login", path, "lvv", stdin="x").out
