"""For tests of plugins: the real application on a spool of its own, and checks that a plugin must pass. Public.

``pytest_plugins = ["smsgw.testing"]`` in a ``conftest.py`` brings the fixtures (``make_gateway``, ``gateway``,
``refusal``); all else is imported from here. Needs the extra ``smsgw[testing]``; docs/plugin-reference.md, "Testing".
"""

from __future__ import annotations

from smsgw.testing.authentication import AuthenticationConformance, DelayConformance, OutageConformance
from smsgw.testing.decisions import PolicyConformance, RouteConformance
from smsgw.testing.gateway import (
    OUTGOING,
    USERS,
    Gateway,
    MakeGateway,
    Users,
    base_settings,
    base_settings_in,
    basic,
    bearer,
    eventually,
    gateway,
    make_gateway,
    make_spool,
    message,
    offered,
    refusal,
    running,
    stored,
    submission,
)
from smsgw.testing.transform import TransformConformance

__all__ = [
    "OUTGOING",
    "USERS",
    "AuthenticationConformance",
    "DelayConformance",
    "Gateway",
    "MakeGateway",
    "OutageConformance",
    "PolicyConformance",
    "RouteConformance",
    "TransformConformance",
    "Users",
    "base_settings",
    "base_settings_in",
    "basic",
    "bearer",
    "eventually",
    "gateway",
    "make_gateway",
    "make_spool",
    "message",
    "offered",
    "refusal",
    "running",
    "stored",
    "submission",
]
