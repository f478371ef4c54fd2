"""The kit's fixtures; a project of plugins overrides ``base_settings`` in its ``conftest.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from smsgw.testing.gateway import Gateway, MakeGateway, base_settings_in, running


@pytest.fixture
def base_settings(tmp_path: Path) -> dict[str, str]:
    """What ``make_gateway`` starts from: a spool of the test's own, users, and the permission to send."""
    return base_settings_in(tmp_path)


@pytest.fixture
def make_gateway(base_settings: dict[str, str]) -> Iterator[MakeGateway]:
    """Make gateways, as ``MakeGateway`` says; their background work ends with the test."""
    with contextlib.ExitStack() as gateways:

        def make(changes: Mapping[str, str | None] | None = None, **plugins: type) -> Gateway:
            merged = {key: value for key, value in {**base_settings, **(changes or {})}.items() if value is not None}
            return gateways.enter_context(running(merged, **plugins))

        yield make


@pytest.fixture
def gateway(make_gateway: MakeGateway) -> Gateway:
    """The gateway of ``base_settings``."""
    return make_gateway()


@pytest.fixture
def refusal(make_gateway: MakeGateway, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Called as ``make_gateway`` is: the sentence with which such a gateway does not start."""

    def start(changes: Mapping[str, str | None], **plugins: type) -> str:
        with pytest.raises(SystemExit) as stopped:
            make_gateway(changes, **plugins)
        sentence = capsys.readouterr().err
        assert stopped.value.code == 3, "a wrong setting ends the process with status 3"
        assert sentence.startswith("smsgw does not start: ")
        assert sentence.count("\n") == 1, f"this should be one sentence on one line:\n{sentence}"
        return sentence

    return start
