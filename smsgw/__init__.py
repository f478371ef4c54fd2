"""smsgw: an HTTP gateway in front of SMS Server Tools 3."""

from __future__ import annotations

import sys
from typing import Any

from pyramid.config import Configurator
from pyramid.router import Router

from smsgw.model import ConfigurationError

PARTS = ("settings", "plugins", "spool", "security", "gateway", "errors", "views", "spool.owner")


def main(global_config: dict[str, str], **settings: Any) -> Router:
    """The application, as PasteDeploy makes it of an ini file.

    What is wrong with the settings is said in one sentence on stderr; the exit status is then 3, which ``pserve`` hands
    on, and which gunicorn takes for a worker that need not be started again.
    """
    try:
        for key in global_config:
            if key.startswith("smsgw."):
                raise ConfigurationError(f"{key} stands in [DEFAULT]; move it to the application's own section")
        with Configurator(settings=settings) as config:
            config.registry.ini = settings  # as written: Pyramid adds its own to its copy
            for part in PARTS:
                config.include(f"smsgw.{part}")
            return config.make_wsgi_app()
    except ConfigurationError as error:
        sentence = f"smsgw does not start: {error}"
        sys.stderr.write(sentence + ("\n" if sentence.endswith("?") else ".\n"))
        raise SystemExit(3) from None
