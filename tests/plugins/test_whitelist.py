"""``whitelist``: which numbers a user may send to."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyramid.security import Denied

from smsgw.model import ConfigurationError, Content, Identity, Message
from smsgw_plugins.whitelist import Whitelist
from tests.conftest import Gateway

CONTENT = Content("lvv", "Hi", "GSM", 1)


def refused(plugin: Whitelist, identity: Identity, numbers: list[str]) -> list[str]:
    answers = {to: plugin.permits(identity, "send", Message("m1", to, CONTENT)) for to in numbers}
    assert all(answer is None or isinstance(answer, Denied) for answer in answers.values())
    return [to for to, answer in answers.items() if answer is not None]


def test_lines_add_up() -> None:
    plugin = Whitelist({"lvv": "+911 7916*", "@alarms": "0079680000000", "@open": "*"})
    numbers = ["911", "9112", "79160000000", "7916", "7915", "79680000000", "796800000001"]
    assert refused(plugin, Identity("lvv"), numbers) == ["9112", "7915", "79680000000", "796800000001"]
    assert refused(plugin, Identity("lvv", frozenset({"alarms"})), numbers) == ["9112", "7915", "796800000001"]
    assert refused(plugin, Identity("ops", frozenset({"alarms"})), ["911", "79680000000"]) == ["911"]
    assert refused(plugin, Identity("ops", frozenset({"alarms", "open"})), numbers) == []
    assert refused(plugin, Identity("ops"), numbers) == []


def test_threads_do_not_lend_each_other_their_numbers() -> None:
    plugin = Whitelist({"lvv": "7916*", "ops": "7968*"})

    def ask(userid: str) -> list[str]:
        return [
            number for _ in range(5000) for number in refused(plugin, Identity(userid), ["79160000000", "79680000000"])
        ]

    with ThreadPoolExecutor(4) as pool:
        answers = dict(zip(("lvv", "ops") * 2, pool.map(ask, ("lvv", "ops") * 2), strict=True))
    assert answers == {"lvv": ["79680000000"] * 5000, "ops": ["79160000000"] * 5000}


def test_other_permissions_are_not_its_business() -> None:
    assert Whitelist({"lvv": "911"}).permits(Identity("lvv"), "list", None) is None


WORDS = ["12", "abc", "s*", "s91*", "+*", "00*", "79*16", "+", "7916**", "7916?", "s7916000000", "٧*"]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_is_no_number(word: str) -> None:
    with pytest.raises(ConfigurationError, match=r"smsgw\.whitelist\.numbers has .* for 'lvv'"):
        Whitelist({"lvv": f"911 {word}"})


def test_through_http(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(
        {"smsgw.plugins": "htpasswd allow whitelist", "smsgw.whitelist.numbers": "\n    lvv: 911 7916*\n    ops: 7968*"}
    )
    reply = gateway.send(mobiles=["+911", "s911", "79160000000", "79680000000", "+7 968 0000000"])
    assert set(reply.json["message_id"]) == {"+911", "s911", "79160000000"}
    assert set(reply.json["errors"]) == {"79680000000", "+7 968 0000000"}
    assert len(gateway.files()) == 2
    reply = gateway.send(mobiles=["79680000000", "x"], status=403)
    assert set(reply.json["errors"]) == {"79680000000", "x"}
    gateway.send(user="ops")
    gateway.send(user="root", mobiles=["12025550123"])


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("lvv", "'lvv'"),
        ("lvv:", "'lvv:'"),
        (": 911", "': 911'"),
        ("lvv: 911\n  lvv: 912", "two lines for 'lvv'"),
    ],
)
def test_bad_lines(
    make_gateway: Callable[..., Gateway], capsys: pytest.CaptureFixture[str], lines: str, sentence: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        make_gateway({"smsgw.plugins": "htpasswd allow whitelist", "smsgw.whitelist.numbers": lines})
    assert stopped.value.code == 3
    assert sentence in capsys.readouterr().err


def test_a_line_that_is_not_indented(make_gateway: Callable[..., Gateway], capsys: pytest.CaptureFixture[str]) -> None:
    for stray in ("ops", "@alarms", "first.last"):
        with pytest.raises(SystemExit) as stopped:
            make_gateway(
                {"smsgw.plugins": "htpasswd allow whitelist", "smsgw.whitelist.numbers": "lvv: 911", stray: "7916*"}
            )
        assert stopped.value.code == 3
        assert "indented" in capsys.readouterr().err


def test_everybody_s_line_adds_up_with_the_others() -> None:
    plugin = Whitelist({"*": "112", "lvv": "7916*"})
    assert refused(plugin, Identity("lvv"), ["112", "79160000000", "7968"]) == ["7968"]
    assert refused(plugin, Identity("ops"), ["112", "79160000000"]) == ["79160000000"]


def test_classes_of_numbers(make_gateway: Callable[..., Gateway]) -> None:
    lines = "\n    lvv: RU short\n    ops: toll-free 12025550123 US"
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow whitelist", "smsgw.whitelist.numbers": lines})
    reply = gateway.send(mobiles=["+79160000000", "+77010000000", "112", "+12025550123", "+999999999999"])
    assert set(reply.json["message_id"]) == {"+79160000000", "112"}
    reply = gateway.send(user="ops", mobiles=["+78001234567", "+12025550123", "+14165550123", "112"])
    assert set(reply.json["message_id"]) == {"+78001234567", "+12025550123"}


@pytest.mark.parametrize(("word", "meant"), [("ru", "RU"), ("premium", "premium-rate"), ("fixed", "fixed-line")])
def test_the_nearest_class_is_named(word: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'lvv': '{word}' is no number.*did you mean '{meant}'"):
        Whitelist({"lvv": f"911 {word}"})
