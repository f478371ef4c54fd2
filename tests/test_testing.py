"""The kit: each of its checks finds the fault that it is for, and lets a sound plugin pass."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest
from webtest import AppError

from smsgw import testing
from smsgw.hookspecs import hookimpl
from smsgw.plugins import GROUP, find
from smsgw.testing import Gateway, MakeGateway, base_settings_in, basic, bearer, message, offered, running, stored
from tests import faulty

ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "docs" / "plugin-reference.md").read_text()
CONFORMANCE = [found for name, found in vars(testing).items() if name.endswith("Conformance")]


@pytest.fixture
def failures(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], Mapping[str, str]]:
    """Run tests of ``faulty``, such as ``TestA`` or ``TestA::test_b``: what each says; nothing where it passes.

    In a process of its own, which may be left with threads that wait for ever.
    """
    pytester.makepyfile(test_faulty="from tests.faulty import *")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(names: list[str]) -> Mapping[str, str]:
        ran = pytester.runpytest_subprocess(
            *("-p", "smsgw.testing", "-p", "no:cacheprovider", "-W", "ignore", "--junitxml=found.xml", "-q"),
            *(f"test_faulty.py::{name}" for name in names),
        )
        assert ran.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), ran.stderr.str()
        cases = ElementTree.parse(pytester.path / "found.xml").iter("testcase")
        return {
            f"{case.attrib['classname'].rpartition('.')[2]}::{case.attrib['name']}": "".join(
                f"{found.text}\n{found.attrib['message']}"  # which pytest cuts off where it is long
                for found in case
                if found.tag in ("failure", "error")
            )
            for case in cases
        }

    return run


def test_sound_plugins_pass(failures: Callable[[list[str]], Mapping[str, str]]) -> None:
    found = failures(faulty.SOUND)
    assert {name: said for name, said in found.items() if said} == {}
    assert len(found) > 40


def test_each_fault_is_found(failures: Callable[[list[str]], Mapping[str, str]]) -> None:
    found = failures([f"{fault.subject}::{fault.check}" for fault in faulty.FAULTS])
    for fault in faulty.FAULTS:
        said = found[f"{fault.subject}::{fault.check}"]
        assert fault.words in said, (fault, said)
        heading = re.search(r"See smsgw's docs/plugin-reference\.md, '([^']+)'", said)
        assert heading, said
        assert re.search(rf"^#+ `?{re.escape(heading[1])}\b", DOCS, re.M), f"there is no heading {heading[1]!r}"


def test_each_check_can_fail() -> None:
    checks = {name for found in CONFORMANCE for name in dir(found) if name.startswith("test_")}
    assert checks == {fault.check for fault in faulty.FAULTS}


class Shout:
    @hookimpl
    def transform(self, text: str) -> str:
        return text.upper()


class TestOffering:
    def test_a_class_of_any_place(self) -> None:
        class Local:
            """Nobody could import this one."""

        with offered(**{"local-one": Local, "shout": Shout}):
            assert find("local-one") is Local
            assert find("shout") is Shout
        assert {"local-one", "shout"}.isdisjoint(entry_points(group=GROUP).names)

    def test_one_within_the_other(self) -> None:
        with offered(shout=Shout), offered(sound=faulty.Sound):
            assert (find("shout"), find("sound")) == (Shout, faulty.Sound)

    def test_what_is_installed_is_left_alone(
        self, distribution: Callable[..., None], make_gateway: MakeGateway, refusal: Callable[..., str]
    ) -> None:
        distribution("acme", f"from {__name__} import Shout", shout="Shout")
        plugins = {"smsgw.plugins": "htpasswd allow shout"}
        assert make_gateway(plugins, shout=Shout).send().json["sent_text"] == "HI, JACK!"
        assert "is offered by acme and smsgw_offered_" in refusal(plugins, shout=faulty.Plain)

    def test_one_that_cannot_be_loaded(self, distribution: Callable[..., None], refusal: Callable[..., str]) -> None:
        distribution("acme", "import no_such_module", shout="Shout")
        with pytest.raises(ModuleNotFoundError), offered(shout=Shout):
            pass
        assert "no_such_module" in refusal({"smsgw.plugins": "htpasswd allow shout"})


class TestGateways:
    @pytest.fixture
    def base_settings(self, tmp_path: Path) -> dict[str, str]:
        """The kit's own, which the suite's others override."""
        return base_settings_in(tmp_path)

    def test_users(self, gateway: Gateway) -> None:
        gateway.send()
        gateway.send(user="ops")
        gateway.send(user=None, status=401)
        sent = gateway.messages()
        assert {(found.owner, found.kind, found.text) for found in sent} == {
            ("lvv", "outgoing", "Hi, Jack!"),
            ("ops", "outgoing", "Hi, Jack!"),
        }
        for found in sent:
            gateway.get(f"/api/v1.0/sms/outgoing/{found.id}", user="root")
        assert gateway.get("/api/v1.0/sms/outgoing/", user="ops").json["total_count"] == 1

    def test_users_of_the_test(self, make_gateway: MakeGateway) -> None:
        settings = {
            "smsgw.users.passwords": "ann: geheim",
            "smsgw.users.groups": "@boss: ann",
            "smsgw.allow.admins": "@boss",
        }
        gateway = make_gateway(settings)
        (id,) = gateway.send(user="ann").json["message_id"].values()
        assert gateway.get("/api/v1.0/sms/outgoing/", user="ann").json["message_id"] == [id]
        gateway.put("sent", "m1", "To: 911\nFrom: ops\n\nHi")
        gateway.get("/api/v1.0/sms/sent/m1", user="ann")
        header = {"Authorization": basic("ann", "falsch")}
        gateway.get("/api/v1.0/sms/sent/m1", user=None, headers=header, status=401)
        header = {"Authorization": bearer("geheim")}
        gateway.get("/api/v1.0/sms/sent/m1", user=None, headers=header, status=401)

    def test_background_work_has_ended_after_the_block(self, tmp_path: Path) -> None:
        ended = threading.Event()

        class Work:
            @hookimpl
            def background(self, stop: threading.Event) -> None:
                stop.wait()
                ended.set()

        settings = base_settings_in(tmp_path / "other") | {"smsgw.plugins": "users allow work"}
        with running(settings, work=Work) as gateway:
            testing.eventually(lambda: [thread for thread in threading.enumerate() if thread.name == "smsgw-work"])
            assert isinstance(gateway.plugin("work"), Work)
            assert not ended.is_set()
        assert ended.is_set()

    def test_no_password_is_in_its_repr(self, gateway: Gateway) -> None:
        assert "SecretPAss" not in repr(gateway)

    def test_another_status_fails(self, gateway: Gateway) -> None:
        with pytest.raises(AppError, match="201"):
            gateway.send(status=403)

    def test_nothing_happens_in_time(self) -> None:
        with pytest.raises(AssertionError, match="it did not happen in time"):
            testing.eventually(lambda: False, 0.05)


def test_contexts_of_policies() -> None:
    assert message("112", "Ж" * 71).content.parts == 2
    assert stored("failed", None, Fail_reason="x").headers["Fail_reason"] == "x"


def test_a_gateway_that_starts_is_no_refusal(refusal: Callable[..., str]) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refusal({})


def test_it_disturbs_no_project_that_does_not_ask_for_it(pytester: pytest.Pytester) -> None:
    """No plugin of pytest's is found by entry point: a project that merely has smsgw installed has its own fixtures."""
    pytester.makepyfile("import sys\ndef test(request): assert 'smsgw' not in sys.modules")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
