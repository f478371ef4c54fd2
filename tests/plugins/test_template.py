"""``template``: texts with parameters, kept by the operator."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgw.hookspecs import hookimpl
from smsgw.model import Identity, Message, TextRefused
from smsgw_plugins.template import Template
from tests.conftest import Gateway

Make = Callable[..., Callable[..., Any]]

LOADED = {"smsgw.plugins": "htpasswd allow template"}

LVV = Identity("lvv")
ALARM = {
    "smsgw.template.texts": "\n  alarm: {host} is {state}\n  test: Test: {{all}} is well, 100 %\n  twice: {a}{b}{a}"
}


def test_a_template_is_filled_in(make_trusting: Make) -> None:
    send = make_trusting("template", ALARM)
    for asked, text in (
        ('template:alarm host=web1 state="is down"', "web1 is is down"),
        ("template:alarm state=down host='web 1'", "web 1 is down"),
        ("template:alarm\n  host=web\\ 1\n  state=down  ", "web 1 is down"),
        ('template:alarm host="a \\"b\\" \\\\ c" state=\'$x `y` ~\'', 'a "b" \\ c is $x `y` ~'),
        ("template:alarm host= state=a=b#c", " is a=b#c"),
        ('template:alarm host="Zürich\n1" state=упал', "Zürich\n1 is упал"),
        ("template:test", "Test: {all} is well, 100 %"),
        ("template:twice a=x b=y", "xyx"),
        ("template:alarm host={state} state={host.__class__}", "{state} is {host.__class__}"),
        ("template:twice a=template: b=test", "template:testtemplate:"),
    ):
        assert send(text=asked)["sent_text"] == text


def test_other_texts_pass_as_they_are(make_trusting: Make) -> None:
    send = make_trusting("template", ALARM)
    for text in (
        "Hi, Jack!",
        " template:alarm",
        "Template:alarm",
        "see template:alarm",
        "{host} it's",
        "template",
        "'",
    ):
        assert send(text=text)["sent_text"] == text


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("template:", "asks for a template that does not exist"),
        ("template: alarm host=a state=b", "asks for a template, and 'alarm' is no key=value"),
        ("template:alrm host=a state=b", "asks for a template that does not exist"),
        ("template:ALARM host=a state=b", "asks for a template that does not exist"),
        ("template:../alarm host=a state=b", "asks for a template that does not exist"),
        ("template:alarm", "lacks parameters of the template 'alarm': host, state"),
        ("template:alarm host=a", "lacks parameters of the template 'alarm': state"),
        ("template:alarm host=a state=b more=c", "has parameters that the template 'alarm' does not have: more"),
        ("template:alarm host=a State=b state=b", "has parameters that the template 'alarm' does not have: State"),
        ("template:test all=a", "has parameters that the template 'test' does not have: all"),
        ("template:alarm host=a host=b state=c", "gives the parameter 'host' twice"),
        ("template:alarm host=a state=is down", "'down' is no key=value"),
        ("template:alarm host=a state=b =c", "'=c' is no key=value"),
        ("template:alarm host=a state=it's", "is not quoted as in a shell: No closing quotation"),
        ('template:alarm host=a state="b', "is not quoted as in a shell: No closing quotation"),
        ("template:alarm host=a state=b\\", "is not quoted as in a shell: No escaped character"),
        ("template:alarm host=a state=" + "x" * 10000, "in more than 10000 characters"),
    ],
)
def test_what_the_client_is_told(make_trusting: Make, asked: str, reason: str) -> None:
    send = make_trusting("template", ALARM)
    errors = send(text=asked, status=400)["errors"]
    assert errors.keys() == {"text"}
    assert reason in errors["text"]


def test_nothing_is_sent_when_a_parameter_is_missing(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(ALARM | {"smsgw.plugins": "htpasswd allow template"})
    gateway.send(text="template:alarm host=a", status=400)
    assert gateway.files() == {}


def test_who_may_send_nothing_but_templates(make_trusting: Make) -> None:
    for only, bound in (("ops, @alarms", {"ops", "lvv @alarms"}), ("*", {"ops", "lvv", "lvv @alarms"})):
        send = make_trusting("template", ALARM | {"smsgw.template.only": only})
        for who in ("ops", "lvv", "lvv @alarms"):
            send(who, text="template:test")
            reply = send(who, text="Hi, Jack!", status=400 if who in bound else 201)
            assert ("template:NAME" in reply.get("errors", {}).get("text", "")) == (who in bound)


def test_policies_see_the_text_as_the_client_wrote_it(make_trusting: Make) -> None:
    seen = []

    class Curious:
        @hookimpl
        def permits(self, permission: str, context: Message) -> None:
            if permission == "send":
                seen.append(context.content.text)

    send = make_trusting("curious template", ALARM, curious=Curious)
    assert send(text="template:alarm host=a state=b")["sent_text"] == "a is b"
    assert seen == ["template:alarm host=a state=b"]


def test_parts_are_those_of_the_filled_in_text(make_trusting: Make) -> None:
    send = make_trusting("template", {"smsgw.template.texts": "long: {x}" + "a" * 150, "smsgw.max_parts": "1"})
    assert send(text="template:long x=" + "b" * 10)["parts_count"] == 1
    assert "2 parts" in send(text="template:long x=" + "b" * 11, status=400)["errors"]["text"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    return folder


def test_files_in_a_folder_change_at_once(make_trusting: Make, folder: Path) -> None:
    (folder / "alarm.txt").write_text("{host}:\n\n  {state} — ничего\n")
    (folder / ".alarm.txt.swp").write_bytes(b"\xff")
    (folder / "README").write_text("{")
    send = make_trusting("template", {"smsgw.template.folder": str(folder)})
    assert send(text="template:alarm host=a state=b")["sent_text"] == "a:\n\n  b — ничего"
    (folder / "alarm.txt").write_bytes("\ufeffAlarm: {host}\r\n".encode())
    assert send(text="template:alarm host=a")["sent_text"] == "Alarm: a"
    send(text="template:new", status=400)
    (folder / "new.txt").write_text("New")
    assert send(text="template:new")["sent_text"] == "New"
    (folder / "new.txt").unlink()
    assert "does not exist" in send(text="template:new", status=400)["errors"]["text"]


def test_names_do_not_lead_out_of_the_folder(make_trusting: Make, folder: Path) -> None:
    (folder.parent / "secret.txt").write_text("secret")
    (folder / "sub").mkdir()
    (folder / "sub" / "secret.txt").write_text("secret")
    send = make_trusting("template", {"smsgw.template.folder": str(folder)})
    for name in ("../secret", "sub/secret", str(folder.parent / "secret"), "..", ".", "x" * 300, "'a\0b'", "а"):
        assert "does not exist" in send(text=f"template:{name}", status=400)["errors"]["text"]


@pytest.mark.parametrize("content", [b"{", b"", b" \n", b"\xff", b"{0}"])
def test_a_file_that_breaks_later_is_not_the_client_s_fault(
    make_trusting: Make, folder: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = folder / "alarm.txt"
    path.write_text("Alarm")
    send = make_trusting("template", {"smsgw.template.folder": str(folder)})
    path.write_bytes(content)
    assert send(text="template:alarm", status=503)["error"] == "The template 'alarm' cannot be used"
    assert any(word in caplog.text for word in ("brace", "empty", "UTF-8"))
    assert send(text="Hi")["sent_text"] == "Hi"


def test_the_ini_file_and_a_folder(make_trusting: Make, refusal: Callable[..., str], folder: Path) -> None:
    settings = ALARM | {"smsgw.template.folder": str(folder)}
    send = make_trusting("template", settings)
    (folder / "alarm.txt").write_text("other")
    assert send(text="template:alarm host=a state=b")["sent_text"] == "a is b"
    assert "two templates 'alarm'" in refusal(LOADED | settings)


BRACES = [
    "{",
    "}",
    "{}",
    "{0}",
    "{host",
    "host}",
    "{x.__class__}",
    "{x[0]}",
    "{x!r}",
    "{x:>9}",
    "{ x }",
    "{x}}",
    "{{x}",
]


@pytest.mark.parametrize("text", [*BRACES, "{{{", "{x-y}", "{ü}"])
def test_a_wrong_template_stops_the_start(refusal: Callable[..., str], folder: Path, text: str) -> None:
    sentence = refusal(LOADED | {"smsgw.template.texts": f"\n  alarm: {{host}}\n  test: {text}"})
    assert "smsgw.template.texts: 'test' has a brace at " in sentence
    (folder / "test.txt").write_text(text)
    sentence = refusal(LOADED | {"smsgw.template.folder": str(folder)})
    assert f"the template in {folder / 'test.txt'} has a brace at " in sentence


def test_other_mistakes_that_stop_the_start(refusal: Callable[..., str], folder: Path) -> None:
    assert "set smsgw.template.texts or smsgw.template.folder" in refusal(LOADED | {})
    assert "'two words' should be called by" in refusal(LOADED | {"smsgw.template.texts": "two words: x"})
    settings = {"smsgw.template.folder": str(folder)}
    for name, content, reason in (
        ("é.txt", b"x", "should be called by"),
        ("a.txt", b"\xff", "is not in UTF-8"),
        ("a.txt", b"\n", "is empty"),
    ):
        path = folder / name
        path.write_bytes(content)
        assert f"{path} {reason}" in refusal(LOADED | settings)
        path.unlink()
    (folder / "a.txt").mkdir()
    assert "cannot be read: Is a directory" in refusal(LOADED | settings)
    os.rmdir(folder / "a.txt")
    os.rmdir(folder)
    assert f"there is no folder {folder}" in refusal(LOADED | settings)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, TEXTS)
def test_any_value_arrives_as_it_is(host: str, state: str) -> None:
    plugin = Template({"alarm": "{host} is {state}"}, None, ())
    asked = f"template:alarm host={shlex.quote(host)} state={shlex.quote(state)}"
    assert plugin.transform(asked, LVV) == f"{host} is {state}"


@given(TEXTS)
def test_any_text_is_filled_in_or_refused(text: str) -> None:
    plugin = Template({"a": "b", "alarm": "{host}"}, None, ("*",))
    for asked in (f"template:{text}", f"template:alarm {text}", text):
        try:
            found = plugin.transform(asked, LVV)
        except TextRefused:
            continue
        assert asked.startswith("template:")
        assert found == ("b" if shlex.split(asked) == ["template:a"] else shlex.split(asked)[1].removeprefix("host="))
