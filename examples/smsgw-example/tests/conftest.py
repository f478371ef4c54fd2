from __future__ import annotations

from collections.abc import Iterator

import pytest

from accounts_server import AccountsServer


@pytest.fixture
def accounts() -> Iterator[AccountsServer]:
    """The organisation's service, on a port of its own."""
    with AccountsServer().running() as server:
        yield server
