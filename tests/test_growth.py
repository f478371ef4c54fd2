"""What comes from outside takes processor time in proportion to its size, so that no input holds up the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pyramid.request import Request

from smsgw import numbers, settings
from smsgw.gateway import once
from smsgw.model import ConfigurationError, Identity, TextRefused
from smsgw.refusals import Refused
from smsgw.spool import file
from smsgw.text import measure
from smsgw.views.v2_search import number_filter, read_search, time_filter, word_filter
from smsgw_plugins.jwt import keys
from smsgw_plugins.ldap import lookup, names
from smsgw_plugins.limit import cut
from smsgw_plugins.template import Template
from smsgw_plugins.transliterate import Transliterate
from smsgw_plugins.webhooks.addresses import read_url

LVV = Identity("lvv")
TIMES = 10  # by how much an input grows
BOUND = 40  # by how much its processor time may grow; what is quadratic grows a hundredfold
LARGE = 100_000  # repetitions
ENOUGH = 0.005  # seconds of processor time that can be measured


@dataclass(frozen=True)
class Way:
    """One way in: how input is read, and inputs as what they begin with, what is repeated, and what they end with."""

    name: str
    read: Callable[[str], object]
    inputs: list[tuple[str, str, str]]


def search(query: str) -> None:
    to = number_filter(numbers.NumberPlan().normalise)
    read_search(Request.blank(f"/?{query}"), {"to": to, "since": time_filter, "reference": word_filter})


def filled(text: str) -> object:
    return Template({"alarm": "{host}"}, None, ()).transform(text, LVV)


def plain(text: str) -> object:
    return Transliterate(everything=True).transform(text, LVV)


WAYS = [
    Way(
        "number",
        numbers.NumberPlan("RU").normalise,
        [("", "7", ""), ("+", "7 ", "x"), ("00", " ", "x"), ("7", "(", "x"), ("", "00", "x"), ("(", "7-", "))")],
    ),
    Way("class of numbers", lambda word: numbers.NumberSet.parse([word]), [("", "7", "*x"), ("+", "0", "*")]),
    Way("text", measure, [("", "€", ""), ("", "a^", "€"), ("", "ж", ""), ("", "😀", "")]),
    Way(
        "template", filled, [("template:alarm host=", '"a"', ""), ("template:", "a=b ", ""), ("template:", "\\ ", "'")]
    ),
    Way(
        "text of a template",
        lambda text: Template({"a": text}, None, ()),
        [("", "{", ""), ("", "{a", "}"), ("", "}{", "")],
    ),
    Way("limit", lambda text: cut(text, 3), [("", "a ", ""), ("", "€", ""), ("", "e\u0301", ""), ("", " ", "x")]),
    Way("transliterate", plain, [("", "…", ""), ("", "ж", ""), ("", "`\t", "")]),
    Way("time", settings.moment, [("2026-11-22T09:16:03.", "0", "Z"), ("", "2026-", "")]),
    Way(
        "ini file",
        lambda value: settings.read_core({"smsgw.spool": value}),
        [("", "\n", ""), ("\n", " ", "x"), ("", "smsgw.", "")],
    ),
    Way(
        "query of v2",
        search,
        [
            ("to=", "7", ""),
            ("", "to=7&", ""),
            ("", "&", ""),
            ("cursor=", "A", ""),
            ("since=", "2-", ""),
            ("limit=", "1", ""),
        ],
    ),
    Way(
        "file",
        lambda text: file.parse(text.encode()).whole,
        [("", "a:b\n", ""), ("", "\n", ""), ("", ":", ""), ("Length: ", "1", "\n\n")],
    ),
    Way("Idempotency-Key", lambda key: once(LVV, key, "body"), [("", "k", ""), ("", "ü", "")]),
    Way(
        "distinguished name",
        names.parse,
        [("cn=", " ", '"'), ("cn=a", " ", "b"), ("", " ", "="), ("", "cn=a,", "cn"), ("cn=", "\\", ""), ("", "a", "")],
    ),
    Way(
        "name of a user",
        lambda name: lookup.ByTemplate(name, False),
        [("", "a", "{userid}"), ("cn={userid}", " ", "x"), ("", "uid={userid},", "")],
    ),
    Way(
        "filter",
        lambda wanted: names.fill_filter(wanted, {"userid": "l*v"}),
        [("", "{", ""), ("", "{userid}", ""), ("", "(", "")],
    ),
    Way(
        "keys",
        lambda content: keys.read(content.encode()),
        [
            ("", "-----BEGIN A-----", ""),
            ("", "-", ""),
            ("-----BEGIN ", "A ", ""),
            ("-----BEGIN A-----", "a-----END", ""),
        ],
    ),
    Way(
        "URL",
        lambda url: read_url(url, is_http_allowed=True),
        [("http://", "a.", "!"), ("http://a/", "/", "^"), ("http://[", ":", "")],
    ),
]

REFUSALS = (ValueError, ConfigurationError, Refused, TextRefused)


def taken(way: Way, content: str) -> float:
    """Seconds of processor time."""
    begin = time.thread_time()
    with contextlib.suppress(*REFUSALS):
        way.read(content)
    return time.thread_time() - begin


@pytest.mark.parametrize(
    ("way", "parts"), [pytest.param(way, parts, id=f"{way.name} {parts}") for way in WAYS for parts in way.inputs]
)
def test_ten_times_the_input_takes_some_ten_times_as_long(way: Way, parts: tuple[str, str, str]) -> None:
    begin, repeated, end = parts
    size = 1000
    while (before := taken(way, begin + repeated * size + end)) < ENOUGH and size < LARGE:
        size *= 2
    larger, most = begin + repeated * (TIMES * size) + end, BOUND * max(before, ENOUGH)
    # Others on the machine empty the processor's caches: what is linear is within the bound at one of three attempts.
    assert any(taken(way, larger) < most for _ in range(3))
