"""smsgw: an HTTP gateway in front of SMS Server Tools 3."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smsgw.model import ConfigurationError

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.router import Router

# Pyramid and Cornice import it, and setup.py sees to it that it is there: nobody who runs a command can do about it.
warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)


def main(global_config: dict[str, str], **settings: Any) -> Router:
    """The application, as PasteDeploy makes it of an ini file.

    What is wrong with the settings is said in one sentence on stderr; the exit status is then 3, which ``pserve`` hands
    on, and which gunicorn takes for a worker that need not be started again.
    """
    try:
        return assemble(global_config, settings).make_wsgi_app()
    except ConfigurationError as error:
        sentence = f"smsgw does not start: {error}"
        sys.stderr.write(sentence + ("\n" if sentence.endswith("?") else ".\n"))
        raise SystemExit(3) from None


def assemble(global_config: Mapping[str, str], settings: Mapping[str, Any]) -> Configurator:
    """All of an application but its start: nothing is written to the spool, and no thread runs.

    :raises ConfigurationError: a setting, a plugin or their combination is wrong.
    """
    from pyramid.config import Configurator
    from pyramid.events import ApplicationCreated

    from smsgw.application import make
    from smsgw.settings import refuse_defaults

    refuse_defaults(global_config)
    with Configurator(settings=dict(settings)) as config:
        application = config.registry.application = make(settings)
        config.include("smsgw.tracing")
        config.include("smsgw.errors")
        config.include("smsgw.views")
        config.add_subscriber(lambda event: application.start(event.app), ApplicationCreated)
    return config
