"""``smsgw login``: what each plugin says of a user and a password, and what that user may do then."""

from __future__ import annotations

import ipaddress
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import click
import pluggy
from pyramid.httpexceptions import HTTPException, HTTPServiceUnavailable
from pyramid.security import Allowed, Denied

from smsgw.cli.arguments import from_stdin, named_installation
from smsgw.cli.installation import Installation, as_owner, one_line
from smsgw.cli.output import say, table
from smsgw.model import Content, Credentials, Identity, Message, StoredMessage, Unavailable
from smsgw.numbers import NumberPlan
from smsgw.plugins import Misbehaved, ask, implementations
from smsgw.security import NOBODY, decide, proper, respelt

HIDDEN = "(the secret)"
SECRET = 6  # characters: a shorter one can be part of any sentence
TEXT = "Hi, Jack!"  # of the message that policies are asked about


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one plugin said, in words. Where no other is asked after it, ``ends`` says what the client gets."""

    plugin: str
    words: str
    seconds: float
    identity: Identity | None = None
    ends: str = ""


def _address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.command()
@named_installation
@click.argument("user", required=False)
@click.option("--bearer", is_flag=True, help="Ask for a token instead of a user's password.")
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    metavar="IP",
    callback=_address,
    help="Where the client would be.",
)
@click.option("--to", "numbers", multiple=True, metavar="NUMBER", help="Whether the user may send there.")
def login(installation: Installation, user: str | None, bearer: bool, address: str, numbers: tuple[str, ...]) -> None:
    """Ask the plugins of INI who USER is, and what USER may do.

    The password is asked for, or read from stdin where that is no terminal. No gateway need run, and a wrong password
    does not count as a guess. The exit status is 0 when the user gets in and may send to each number, otherwise 1.
    """
    if bearer == (user is not None):
        raise click.UsageError("name a user, or ask for a token with --bearer")
    if user is not None and (not user or not user.isprintable() or ":" in user):
        raise click.UsageError("no client can show a user name that is empty, or has ':' or a control character in it")
    plugins = installation.application.plugins
    normalised = _normalised(installation, numbers)
    credentials = Credentials("Bearer" if bearer else "Basic", user or "", _secret(bearer), address)
    backends = implementations(plugins.hook.authenticate)
    as_gateway = partial(as_owner, installation.layout.state)
    with as_gateway():
        answers = list(_walk(backends, credentials))
    rows = [(answer.plugin, f"{answer.seconds * 1000:.0f} ms", answer.words) for answer in answers]
    asked = {answer.plugin for answer in answers}
    rows += [(backend.plugin_name, "", "not asked") for backend in backends if backend.plugin_name not in asked]
    table(("plugin", "took", "said"), rows)
    for found in implementations(plugins.hook.find_credentials):
        say("", f"{found.plugin_name} finds credentials of its own in requests, which only a request can show.")
    identity = answers[-1].identity if answers else None
    say("", answers[-1].ends if answers and answers[-1].ends else "Nobody knows these credentials: 401.")
    with as_gateway():
        if identity is None or not _tell_permissions(implementations(plugins.hook.permits), identity, normalised):
            raise click.exceptions.Exit(1)


def _walk(backends: Sequence[pluggy.HookImpl], credentials: Credentials) -> Iterator[_Answer]:
    """What each plugin answers, until one ends the chain; as ``smsgw.security`` asks them."""
    for place, backend in enumerate(backends):
        answer = _ask(backend, credentials)
        again = list(_ask_again(backends[:place], credentials, answer))
        yield from [answer, *again] if again and again[-1].ends else [*again, answer]
        if answer.ends:
            return


def _ask_again(backends: Sequence[pluggy.HookImpl], credentials: Credentials, answer: _Answer) -> Iterator[_Answer]:
    """What the plugins before say of the userid in the spelling of the plugin that knew the user."""
    again = respelt(credentials, answer.identity) if answer.identity else None
    if again is None:
        return
    for backend in backends:
        found = _ask(backend, again)
        yield replace(found, words=f"of {again.userid}: {found.words}")
        if found.ends:
            return


def _ask(backend: pluggy.HookImpl, credentials: Credentials) -> _Answer:
    begin = time.perf_counter()

    def said(words: str, ends: str = "", identity: Identity | None = None) -> _Answer:
        if identity is None and len(credentials.secret) >= SECRET:
            words = words.replace(credentials.secret, HIDDEN)  # a plugin's error may quote it
        return _Answer(backend.plugin_name, words, time.perf_counter() - begin, identity, ends)

    try:
        answer = proper(backend, ask(backend, {"credentials": credentials}))
    except Misbehaved as error:
        return said(f"a bug: it {error.sentence}", "The user does not get in (401): that plugin has a bug.")
    except Unavailable as error:
        cause = f" ({one_line(error.__cause__)})" if error.__cause__ else ""
        return said(f"out of service: {error.detail}{cause}", "Nobody else is asked, and the request ends with 503.")
    except HTTPServiceUnavailable as error:
        return said(f"out of service: {error.detail}", "Nobody else is asked, and the request ends with 503.")
    except HTTPException as error:
        return said(f"{error.status}: {error.detail or ''}", f"The request ends with {error.code}.")
    except Exception as error:
        return said(f"a bug: {one_line(error)}", "The request ends with 500: that plugin has a bug.")
    if isinstance(answer, Identity):
        groups = f", in {', '.join(sorted(answer.groups))}" if answer.groups else ", in no group"
        return said(f"{answer.userid}{groups}", f"The user gets in, as {answer.userid}.", answer)
    if isinstance(answer, Denied):
        return said(f"no: {_reason(answer)}", "The user does not get in: 401.")
    return said("not mine")


def _tell_permissions(
    policies: Sequence[pluggy.HookImpl], identity: Identity, numbers: Sequence[tuple[str, str]]
) -> bool:
    """Show what that user may do; whether the user may send to each of the numbers."""
    own = StoredMessage("sent", "example", {"From": identity.userid}, TEXT, identity.userid)
    others = StoredMessage("sent", "example", {}, TEXT, None)
    content = Content(identity.userid, TEXT, "GSM", 1)
    sends = [(f"send to {written}", "send", Message("example", to, content)) for written, to in numbers]
    asked: list[tuple[str, str, object]] = [
        *sends,
        ("list messages", "list", None),
        *((f"{permission} own messages", permission, own) for permission in ("read", "cancel", "delete")),
        ("list everybody's", "read-all", None),
        *((f"{permission} others' messages", permission, others) for permission in ("read", "cancel", "delete")),
    ]
    rows, may_send = [], True
    for words, permission, context in asked:
        verdict = decide(policies, identity, permission, context)
        may_send = may_send and (bool(verdict) or permission != "send")
        rows.append((words, "yes" if verdict else "no", _why(policies, identity, permission, context, bool(verdict))))
    say("")
    table(("may", "", "because"), rows)
    if not sends:
        say("", "Whether the user may send depends on the number: name one with --to.")
    return may_send


def _why(
    policies: Sequence[pluggy.HookImpl], identity: Identity, permission: str, context: object, verdict: bool
) -> str:
    """Which policy decided, and its reason."""
    for policy in policies:
        answer = decide([policy], identity, permission, context)
        if bool(answer) == verdict and answer is not NOBODY:
            return f"{policy.plugin_name}: {_reason(answer)}"
    return "nobody allows it"


def _reason(answer: Allowed | Denied) -> str:
    try:
        return str(answer)
    except (TypeError, ValueError):  # Pyramid fills in what a % asks for
        return str(answer.s)


def _normalised(installation: Installation, numbers: Sequence[str]) -> list[tuple[str, str]]:
    """Each number as written, and as policies are shown it."""
    plan = NumberPlan(installation.smsgw.region)
    try:
        return [(written, plan.normalise(written)) for written in numbers]
    except ValueError as error:
        raise click.UsageError(f"--to: {error}") from None


def _secret(bearer: bool) -> str:
    word = "Token" if bearer else "Password"
    if sys.stdin.isatty():
        secret: str = click.prompt(word, hide_input=True, err=True, default="", show_default=False)
        return secret
    return from_stdin("what stands on stdin")
