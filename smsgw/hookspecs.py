"""The hooks: what a plugin may decide. Public; ``docs/plugin-reference.md`` has the rules of each.

A plugin is a class whose methods are marked ``@hookimpl``. Each takes any of the arguments named here, by name.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pluggy
from pyramid.request import Request
from pyramid.security import Allowed, Denied

from smsgw.model import Alarm, Allowance, Change, Credentials, Event, Identity, Measure, Message, Options, Submission

PROJECT = "smsgw"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def find_credentials(request: Request) -> Credentials | None:
    """The credentials in a request; ``None``: none that this plugin knows.

    The first answer counts. Where no plugin has one, the core reads the ``Authorization`` header
    (Basic, RFC 7617; Bearer, RFC 6750).
    """


@hookspec(firstresult=True)
def authenticate(credentials: Credentials) -> Identity | Denied | None:
    """Who that is. ``Denied`` ends the chain and the request (401); ``None``: not mine, ask the next.

    The first answer counts, in the order of ``smsgw.plugins``. A userid has at most 99 bytes, no control character, and
    no ``@`` at its beginning, where the ini file has groups; any other is refused.

    A plugin whose backend is out of service raises ``smsgw.model.Unavailable``, or Pyramid's
    ``HTTPServiceUnavailable``: the request ends with 503, and no other backend is asked.
    """


@hookspec
def signed_in(identity: Identity) -> None:
    """A request of that user was authenticated.

    Called for each request, in the process that serves it, before anything else is decided. It must return at once; one
    that raises ends the request.
    """


@hookspec(firstresult=True)
def holds(credential: str) -> bool | None:
    """Whether that ``Identity.credential`` still lets its user in; ``None``: not mine.

    The first answer counts. A credential that no plugin knows is no longer good. A plugin that cannot tell now raises
    ``smsgw.model.Unavailable``, and is asked again later.
    """


@hookspec
def permits(identity: Identity, permission: str, context: object) -> Allowed | Denied | None:
    """Whether that user may do that; ``None``: no opinion.

    Any ``Denied`` wins, no ``Allowed`` at all means denied, and a plugin that raises refuses. Permissions: ``send``
    (context: the ``Message`` with the text as the client wrote it, one call a recipient); ``submit`` (context: the
    ``Submission``, as it would be delivered, one call a request); ``read``, ``delete`` and ``cancel`` (context: the
    ``StoredMessage``); ``list``, ``read-all`` and ``health`` (context: ``None``, one call a request).

    ``submit`` is asked after ``send`` has allowed each of its messages. So ``Denied`` refuses the whole request (403),
    and no opinion at all allows it.
    """


@hookspec
def transform(text: str, identity: Identity) -> str:
    """The text as it goes out, not empty. Each plugin is given what the one before it returned.

    Called once for each different text of a request, in the order of ``smsgw.plugins``. A plugin that raises stops the
    request, and nothing is sent. With ``smsgw.model.TextRefused`` the client is told what is wrong with the text.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def route(message: Message, identity: Identity) -> Options | None:
    """Which queue a message takes, and its priority and other options; ``None``: no opinion.

    The first answer counts, in the order of ``smsgw.plugins``. It takes the place of all options that the client asked
    for, which ``message.content.options`` has: change a copy (``dataclasses.replace``). Without a queue, the message
    takes ``smsgw.default_queue``. Called once for each message that may be sent, with the text as it goes out.

    Options that a client could not have, such as an unknown queue, are an error in the log; the reply is 500, and
    nothing is sent.
    """


@hookspec
def deliver(submission: Submission) -> Sequence[Message] | None:
    """Take messages, and return a list or tuple of those that were taken; ``None``, or an empty list: none.

    Plugins are asked in the order of ``smsgw.plugins``. Each is offered what the ones before it left, and the core
    writes the rest to the spool. Any other answer is an error in the log, and the reply is 500.

    A plugin that raises takes nothing, and nobody after it is asked. Where no message was taken before, nothing is sent
    and the exception decides the reply: 503 for ``smsgw.model.Unavailable``, also where the spool takes nothing. Where
    some were taken, those are answered as accepted, and each other message as rejected: ``unavailable``.

    A wrapper (``@hookimpl(wrapper=True)``) sees the whole submission before anybody takes a message. It refuses the
    whole by raising ``smsgw.model.TooMany`` or ``smsgw.api.Forbidden`` before its one ``yield``, which gives the
    messages that were taken, and which it returns. An exception after the ``yield`` is an error in the log and changes
    no reply: what was sent is answered as sent.
    """


@hookspec
def notify(events: Sequence[Event | Alarm]) -> None:
    """What became of messages, modems and queues: in order for each of them, to each plugin at least once.

    The attribute ``hears`` says which events the plugin is told of; without it, all of messages, and no ``Alarm``.
    Called in the process that owns the spool, each plugin on its own; one that raises is told the same events again
    later, and holds up nobody else.
    """


@hookspec
def background(stop: threading.Event) -> None:
    """Work beside the requests, in a thread of its own, in the one process that owns the spool.

    Returns soon after ``stop`` is set; it is called again when the process comes to own the spool again.
    """


@hookspec
def fault() -> str | None:
    """What is wrong now with what the plugin needs, such as a directory: a sentence with no secret; ``None``: nothing.

    ``GET /health`` tells it. Where all plugins with ``authenticate`` have a fault, ``GET /health/ready`` answers 503.
    It is called often and returns at once: a plugin tells what its last requests met, and forgets that after a minute.
    """


@hookspec
def changed(change: Change) -> None:
    """A command, such as ``smsgw token revoke``, has changed something.

    Called in the process of that command, where nothing else of the gateway is made: no ``includeme`` was called. One
    that raises changes nothing; the command tells of it.
    """


@hookspec
def measures() -> Sequence[Measure]:
    """Numbers of the plugin as they stand now, for whom watches the gateway.

    The plugin ``metrics`` asks for them at each ``GET /metrics``, in any process: what several processes count belongs
    into the store. Of a plugin that raises there are none.
    """
    raise NotImplementedError


@hookspec
def limits(identity: Identity) -> Sequence[Allowance]:
    """The limits that apply to that user, and what is left of them (``GET /api/v2/me``).

    It decides nothing: what is left can be used up before the user sends.
    """
    raise NotImplementedError
