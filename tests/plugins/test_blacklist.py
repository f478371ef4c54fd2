"""``blacklist``: which numbers a user may not send to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Gateway

Make = Callable[..., Callable[..., Any]]

LOADED = {"smsgw.plugins": "htpasswd allow blacklist"}


def test_through_http(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(
        {
            "smsgw.plugins": "htpasswd allow blacklist",
            "smsgw.blacklist.numbers": "\n    *: premium-rate 7999* KZ\n    lvv: 112 +79680000000",
        }
    )
    numbers = ["112", "79680000000", "79680000001", "79991112233", "+77010000000", "+7 809 1234567"]
    reply = gateway.send(mobiles=numbers).json
    assert set(reply["message_id"]) == {"79680000001"}
    assert set(reply["errors"].values()) == {"forbidden"}
    reply = gateway.send(user="ops", mobiles=["112", "79680000000", "79991112233"]).json
    assert set(reply["errors"]) == {"79991112233"}
    gateway.send(user="ops", mobiles=["79991112233"], status=403)


@pytest.mark.parametrize("plugins", ["whitelist blacklist", "blacklist whitelist"])
def test_denied_beats_allowed(make_trusting: Make, plugins: str) -> None:
    send = make_trusting(
        plugins, {"smsgw.whitelist.numbers": "lvv: 7916* 112", "smsgw.blacklist.numbers": "lvv: 79160000000 7968*"}
    )
    reply = send(mobiles=["112", "79160000000", "79160000001", "79680000000", "12025550123"])
    assert set(reply["message_id"]) == {"112", "79160000001"}


def test_lines_of_users_groups_and_everybody_each_deny(make_trusting: Make) -> None:
    lines = "\n    *: 111\n    lvv: 222\n    @alarms: 333\n    @night: 444"
    send = make_trusting("blacklist", {"smsgw.blacklist.numbers": lines})

    def refused(who: str) -> set[str]:
        return set(send(who, mobiles=["111", "222", "333", "444", "555"])["errors"])

    assert refused("ops") == {"111"}
    assert refused("lvv") == {"111", "222"}
    assert refused("lvv @alarms @night") == {"111", "222", "333", "444"}
    assert refused("alarms @lvv") == {"111"}


def test_who_has_no_line_may_send_anywhere(make_trusting: Make) -> None:
    send = make_trusting("blacklist", {"smsgw.blacklist.numbers": "@alarms: *"})
    assert "errors" not in send("lvv", mobiles=["112", "79680000000"])
    send("lvv @alarms", mobiles=["112", "79680000000"], status=403)


@pytest.mark.parametrize(("region", "refused"), [(None, set()), ("FR", {"1000"}), ("US", {"24280"})])
def test_short_numbers_of_premium_rate_are_those_of_the_region(
    make_trusting: Make, region: str | None, refused: set[str]
) -> None:
    send = make_trusting("blacklist", {"smsgw.blacklist.numbers": "*: premium-rate", "smsgw.region": region})
    reply = send(mobiles=["24280", "1000", "112", "+79680000000"])
    assert set(reply.get("errors", {})) == refused


def test_all_short_numbers(make_trusting: Make) -> None:
    send = make_trusting("blacklist", {"smsgw.blacklist.numbers": "*: short"})
    assert set(send(mobiles=["112", "s123456", "1234567"])["errors"]) == {"112", "s123456"}


def test_a_digit_too_many_makes_a_number_unknown(make_trusting: Make) -> None:
    send = make_trusting("blacklist", {"smsgw.blacklist.numbers": "*: premium-rate unknown"})
    numbers = ["+78091234567", "+780912345678", "+999999999999", "+79680000000"]
    assert set(send(mobiles=numbers)["message_id"]) == {"+79680000000"}


def test_nothing_but_sending_is_its_business(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow blacklist", "smsgw.blacklist.numbers": "*: *"})
    gateway.send(status=403)
    gateway.get("/api/v1.0/sms/sent/")


@pytest.mark.parametrize("word", ["premium", "kz", "12", "79*99", "7999**"])
def test_a_wrong_word_stops_the_start(refusal: Callable[..., str], word: str) -> None:
    sentence = refusal(LOADED | {"smsgw.blacklist.numbers": f"*: 911 {word}"})
    assert "smsgw.blacklist.numbers" in sentence
    assert f"'*': {word!r}" in sentence
