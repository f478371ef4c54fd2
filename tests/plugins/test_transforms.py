"""``transliterate`` and ``signature``: what goes out is what ``sent_text`` says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgw.model import Identity
from smsgw.text import BASIC, EXTENSION, measure
from smsgw_plugins.signature import Signature
from smsgw_plugins.transliterate import Transliterate
from tests.conftest import Gateway

LVV = Identity("lvv", frozenset({"alarms"}))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("“Hi” – it’s ‘me’…", "\"Hi\" - it's 'me'..."),
        ("5\u00a0000\u202f—\u20092‐3‑4\u22125", "5 000 - 2-3-4-5"),
        ("Привет — «Джек»", "Привет - «Джек»"),
        ("naïve ` \t €", "naïve ` \t €"),
    ],
)
def test_typographic_characters(text: str, plain: str) -> None:
    assert Transliterate(everything=False).transform(text, LVV) == plain


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("Ж" * 71, "Zh" * 71),
        ("Привет", "Привет"),  # one part either way
        ("Ж" * 70, "Ж" * 70),
        ("`\ta" * 30, "' a" * 30),
    ],
)
def test_everything_when_it_saves_parts(text: str, latin: str) -> None:
    found = Transliterate(everything=True).transform(text, LVV)
    assert found == latin


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_it_never_needs_more_parts_nor_empties_a_text(text: str) -> None:
    for everything in (False, True):
        found = Transliterate(everything=everything).transform(text, LVV)
        assert found
        assert measure(found).parts <= measure(text).parts or "…" in text


@given(st.text(st.sampled_from(BASIC + EXTENSION), min_size=1))
def test_what_the_gsm_alphabet_has_stays(text: str) -> None:
    assert Transliterate(everything=False).transform(text, LVV) == text


def test_signatures() -> None:
    plugin = Signature(text="ACME", lines={"@alarms": "ACME alarms", "ops": "ACME operations"})
    assert plugin.transform("Hi", Identity("ann")) == "Hi\nACME"
    assert plugin.transform("Hi", LVV) == "Hi\nACME alarms"
    assert plugin.transform("Hi", Identity("ops", frozenset({"alarms"}))) == "Hi\nACME operations"
    assert Signature(text=None, lines={"ops": "x"}).transform("Hi", LVV) == "Hi"


def test_in_the_order_of_the_ini_file(make_gateway: Callable[..., Gateway]) -> None:
    settings: dict[str, str | None] = {"smsgw.signature.text": "— ACME"}
    for plugins, text in (
        ("htpasswd allow transliterate signature", "it's\n— ACME"),
        ("htpasswd allow signature transliterate", "it's\n- ACME"),
    ):
        gateway = make_gateway(settings | {"smsgw.plugins": plugins})
        reply = gateway.send(text="it’s")
        assert reply.json["sent_text"] == text
        (id,) = reply.json["message_id"].values()
        assert gateway.get(f"/api/v1.0/sms/outgoing/{id}").json["text"] == text


def test_parts_are_counted_after_the_transforms(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(
        {"smsgw.plugins": "htpasswd allow signature", "smsgw.signature.text": "x", "smsgw.max_parts": "1"}
    )
    assert gateway.send(text="a" * 158).json["parts_count"] == 1
    assert "text" in gateway.send(text="a" * 159, status=400).json["errors"]
