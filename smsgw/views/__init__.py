"""HTTP: one module for each version of the API, one Cornice service for each path, and then the plugins' own."""

from __future__ import annotations

from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.httpexceptions import HTTPNotFound

from smsgw.plugins import include_views


def refuse_line_end(event: NewRequest) -> None:
    """A path that ends with a line break is no other path's, though Pyramid's routes (``$``) would match it."""
    if event.request.environ.get("PATH_INFO", "").endswith("\n"):
        raise HTTPNotFound


def includeme(config: Configurator) -> None:
    config.add_settings(handle_exceptions=False)  # Cornice's views of exceptions; ours are in errors.py
    config.add_subscriber(refuse_line_end, NewRequest)
    config.include("cornice")
    config.include("smsgw.views.body")
    config.include("smsgw.views.v1")
    include_views(config)
