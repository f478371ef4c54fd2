"""HTTP: one module for each version of the API, one Cornice service for each path, and then the plugins' own."""

from __future__ import annotations

from pyramid.config import Configurator

from smsgw.application import application
from smsgw.plugins import include_views
from smsgw.security import AUTHENTICATED


def includeme(config: Configurator) -> None:
    found = application(config)
    config.set_security_policy(found.policy)
    config.set_default_permission(AUTHENTICATED)  # a view is public only where it says so
    config.add_settings(handle_exceptions=False)  # Cornice's views of exceptions; ours are in errors.py
    config.include("cornice")
    # Nothing uses it, and it would make a class for every request.
    config.add_request_method(None, name="current_service")
    config.include("smsgw.views.body")
    config.include("smsgw.views.v1")
    config.include("smsgw.views.v2")
    config.include("smsgw.views.health")
    include_views(config, found.plugins, found.settings.plugins)
