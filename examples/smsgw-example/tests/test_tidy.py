"""``tidy``: less white space."""

from __future__ import annotations

import pytest
from smsgw.testing import MakeGateway, TransformConformance


class TestTidy(TransformConformance):
    plugin = "tidy"


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("  Hi,\t Jack! \n", "Hi, Jack!"),
        ("Dear Jack,  \r\n\r\n  hi!", "Dear Jack,\n\nhi!"),
    ],
)
def test_white_space(make_gateway: MakeGateway, text: str, tidy: str) -> None:
    gateway = make_gateway({"smsgw.plugins": "users allow tidy"})
    assert gateway.send(text=text).json["sent_text"] == tidy
    assert [message.text for message in gateway.messages()] == [tidy]


def test_nothing_is_left(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "users allow tidy"})
    assert gateway.send(text=" \n\t", status=400).json["errors"] == {"text": "has nothing but white space"}
