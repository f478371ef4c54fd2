"""All parts are killed at random moments: gateways, the spool's owner, smsd, who receives webhooks, the database.

Clients repeat their requests under one idempotency key until they are answered. At the end every message entered
``outgoing`` once, its status is what the modems know, and every receiver has heard of every event.

``SMSGW_FAULTS="300 42"`` lets it go on for 300 seconds, with that seed; the seed decides who dies, and about when.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import sqlalchemy
from inotify_simple import INotify, flags

from tests.conftest import FULL, OUTGOING, at_length
from tests.postgresql import Postgresql
from tests.recorder import Recorder
from tests.server import Reply, Server, free_port
from tests.smsd.modem import Later
from tests.smsd.pdu import Submitted
from tests.smsd.server import Smsd
from tests.test_faults import owner_among

SECONDS = at_length(15, 8)  # of faults
PATIENCE = 120.0  # seconds until what goes on without faults has come to its end
CLIENTS = 6
LONG = "0123456789" * 40  # three parts

# By a number's last digit: what is reported of each part, and the message's status in the end.
NETWORK: dict[str, tuple[tuple[int | Later, ...], str]] = {
    "0": ((0,), "delivered"),
    "1": ((0, 0), "delivered"),
    "2": ((48, 0), "delivered"),
    "3": ((0, 70), "delivered"),
    "4": ((70,), "undelivered"),
    "5": ((70, 0), "undelivered"),
    "6": ((48,), "sent"),
    "7": ((), "sent"),
    "8": ((Later(0, 2),), "delivered"),
    "9": ((), "failed"),
}
PREFIX = "smsgw.http."  # of messages of ours; smsd tries out its folders when it starts
REFUSED = "7999"  # how numbers begin that end with 9
EVENTS = ("sent", "delivered", "undelivered", "failed", "cancelled")


def network(part: Submitted) -> Sequence[int | Later]:
    return NETWORK[part.number[-1]][0]


class Entrance:
    """Counts what enters ``outgoing``, as the kernel tells it; the context manager watches."""

    def __init__(self, outgoing: Path) -> None:
        self.entered: Counter[str] = Counter()
        self._stop = threading.Event()
        self._watch = INotify()
        self._watch.add_watch(outgoing, flags.CREATE | flags.MOVED_TO | flags.ONLYDIR)
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._watch.close()
        self._done.result()

    def _count(self) -> None:
        while not self._stop.is_set():
            for event in self._watch.read(timeout=100):
                assert not event.mask & flags.Q_OVERFLOW, "the kernel lost count"
                if event.name.startswith(PREFIX) and not event.name.endswith(".LOCK"):
                    self.entered[event.name] += 1


@dataclass
class Asked:
    """What clients asked for and were promised, by number."""

    ids: dict[str, str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)

    def status(self, number: str) -> str:
        """What becomes of that number's message."""
        return "cancelled" if number in self.cancelled else NETWORK[number[-1]][1]

    @property
    def statuses(self) -> dict[str, str]:
        return {id: self.status(number) for number, id in self.ids.items()}


class Client:
    """Sends, and takes back some of it, without a pause to speak of; each request until it is answered."""

    def __init__(self, number: int, server: Server, asked: Asked, chance: random.Random) -> None:
        self._number, self._server, self._asked, self._chance = number, server, asked, chance
        self._sent = 0

    def run(self, over: threading.Event) -> None:
        while not over.wait(self._chance.uniform(0.05, 0.4)):
            numbers = [self._next() for _ in range(self._chance.choice((1, 1, 1, 3, 8)))]
            key = f"client-{self._number}-{self._sent}"
            ids = self._by_v1(numbers, key) if self._chance.random() < 0.4 else self._by_v2(numbers, key)
            assert ids.keys() == set(numbers)
            self._asked.ids |= ids
            if self._chance.random() < 0.2:
                number = self._chance.choice(numbers)
                reply = self._insist("DELETE", f"/api/v2/messages/{ids[number]}", (200, 409))
                if reply.status == 200:
                    self._asked.cancelled.add(number)

    def _next(self) -> str:
        """A number that nobody else writes to, which decides what becomes of the message."""
        self._sent += 1
        fate = self._chance.choice("0123456789")
        return f"{REFUSED if fate == '9' else '7916'}{self._number}{self._sent:05}{fate}"

    def _by_v1(self, numbers: Sequence[str], key: str) -> dict[str, str]:
        body = {"mobiles": numbers, "text": self._text(), "report": True}
        ids: dict[str, str] = self._insist("POST", OUTGOING, (201,), body, key).json["message_id"]
        return ids

    def _by_v2(self, numbers: Sequence[str], key: str) -> dict[str, str]:
        drafts = [{"to": f"+{number}", "text": self._text(), "reference": number} for number in numbers]
        body: dict[str, Any] = {"messages": drafts, "report": True}
        if self._chance.random() < 0.2:
            body["send_at"] = (datetime.now(UTC) + timedelta(seconds=self._chance.uniform(0, 4))).isoformat()
        reply = self._insist("POST", "/api/v2/messages", (202,), body, key)
        return {message["to"].removeprefix("+"): message["id"] for message in reply.json["messages"]}

    def _text(self) -> str:
        return self._chance.choice(("Hi, Jack!", "Привет", LONG))

    def _insist(self, method: str, path: str, wanted: Sequence[int], body: Any = None, key: str | None = None) -> Reply:
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                reply = self._server.request(method, path, body, headers={"Idempotency-Key": key} if key else None)
                if reply.status in wanted:
                    return reply
                assert reply.status in (409, 503), (method, path, body, reply.status, reply.body)
            assert time.monotonic() < until, (method, path, body)
            threading.Event().wait(0.1)


class World:
    """All parts, as an operator would set them up; the context manager starts and always ends them."""

    def __init__(self, folder: Path, settings: dict[str, str], store: str, database: Postgresql | None) -> None:
        self._parts = contextlib.ExitStack()
        self._folder, self._store, self._database = folder, store, database
        self._settings = settings | {
            "smsgw.plugins": "htpasswd allow webhooks",
            "smsgw.webhooks.allow_private": "true",
            "smsgw.webhooks.timeout": "2",
            "smsgw.outgoing_depth": "20",
            "smsgw.store": store,
        }
        del self._settings["smsgw.spool"]
        self.excused: Counter[str] = Counter()  # messages that smsd had when it was killed, and sends again
        self.deaths: Counter[str] = Counter()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            self.smsd = parts.enter_context(Smsd(self._folder, modems=4, extra_modem="messageids = 3\n"))
            for modem in self.smsd.modems:
                modem.delay, modem.reports = 0.04, network
                modem.refuse(REFUSED)
            self.entrance = parts.enter_context(Entrance(self.smsd.spool / "outgoing"))
            self._settings["smsgw.smsd_conf"] = str(self.smsd.conf)
            self.server = parts.enter_context(Server(self._folder, self._settings, workers=2))
            self.recorders = {
                user: parts.enter_context(Recorder(self._folder, user, free_port())) for user in ("lvv", "root")
            }
            for user, recorder in self.recorders.items():
                events = [f"message.{event}" for event in (*EVENTS, *(["received"] if user == "root" else []))]
                reply = self.server.request(
                    "POST", "/api/v2/webhooks", {"url": recorder.url, "events": events}, user=user
                )
                assert reply.status == 201, reply.body
                recorder.trust(reply.json["secret"])
            self._parts = parts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()
        print(self.server.stderr[-5000:], self.smsd.log[-5000:], sep="\n")

    # Death

    def kill_gateway(self) -> Callable[[], object]:
        self.server.kill()
        return self.server.start

    def kill_owner(self) -> Callable[[], object]:
        """Of gunicorn's two processes the one that has the trackers; gunicorn starts another one."""
        state = self.smsd.spool / "outgoing" / ".smsgw"
        if owner := owner_among(self.server.workers, state, self._folder / "scratch"):
            os.kill(owner, signal.SIGKILL)
        return lambda: None

    def kill_smsd(self) -> Callable[[], object]:
        self.smsd.kill()
        self.excused.update(path.name for path in (self.smsd.spool / "checked").iterdir())
        return self.smsd.start

    def kill_receiver(self, user: str) -> Callable[[], object]:
        self.recorders[user].kill()
        return self.recorders[user].start

    def kill_database(self) -> Callable[[], object]:
        assert self._database is not None
        self._database.kill()
        return self._database.start

    def torments(self) -> dict[str, tuple[Callable[[], Callable[[], object]], ...]]:
        """Who is killed, each of them independently of the others; of several ways one at a time."""
        found: dict[str, tuple[Callable[[], Callable[[], object]], ...]] = {
            "gateway": (self.kill_gateway, self.kill_owner),
            "smsd": (self.kill_smsd,),
            **{user: (lambda user=user: self.kill_receiver(user),) for user in self.recorders},
        }
        return found | ({"database": (self.kill_database,)} if self._database else {})

    def torment(self, name: str, chance: random.Random, over: threading.Event) -> None:
        while not over.wait(chance.uniform(0.5, 4)):
            start = chance.choice(self.torments()[name])()
            self.deaths[name] += 1
            try:
                over.wait(chance.uniform(0, 1.5))
            finally:
                start()

    # What else happens

    def receive(self, chance: random.Random, over: threading.Event) -> None:
        """Messages come in on all modems."""
        count = 0
        while not over.wait(chance.uniform(0.1, 0.5)):
            count += 1
            texts = [f"incoming {count}"] if chance.random() < 0.7 else [f"incoming {count}", " in ", "parts"]
            chance.choice(self.smsd.modems).receive("79050000000", *texts)

    def hurry(self) -> None:
        """Time passes: what waits to be told again, or was under way in a process that died, is due."""
        later = {"later": int(time.time() * 1000) + 3000}
        engine = sqlalchemy.create_engine(self._store, isolation_level="AUTOCOMMIT")  # or it would wait for the gateway
        with engine.connect() as connection:
            waiting = sqlalchemy.text("SELECT number FROM webhooks_deliveries WHERE due > :later")
            for (number,) in connection.execute(waiting, later).all():
                hurried = sqlalchemy.text(
                    "UPDATE webhooks_deliveries SET due = 0 WHERE number = :number AND due > :later"
                )
                connection.execute(hurried, later | {"number": number})
        engine.dispose()

    def catch_up(self) -> None:
        """What the network was to report later, it reports now."""
        for modem in self.smsd.modems:
            modem.report_late()

    # What became of it

    def statuses(self) -> dict[str, str]:
        """Of all messages, as clients find them page by page."""
        found: dict[str, str] = {}
        path = "/api/v2/messages?limit=100"
        while path:
            page = self.server.request("GET", path, timeout=60).json
            found |= {message["id"]: message["status"] for message in page["messages"]}
            path = page["next"]
        return found

    def phones(self) -> Counter[str]:
        """How often the first part of a message to each number was taken by a modem."""
        parts = (part for modem in self.smsd.modems for part in modem.pdus)
        return Counter(part.number for part in parts if part.index == 1)

    def received(self) -> set[tuple[str, str]]:
        """What is to be heard of messages that came in; of what smsd was killed over there are halves as well."""
        return {("message.received", path.name) for path in self.smsd.files("incoming")}

    def heard(self, user: str) -> set[tuple[str, str]]:
        return {(event.type, event.message) for event in self.recorders[user].heard()}


@pytest.fixture(params=["postgresql", "sqlite"] if FULL else ["sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path, base_settings: dict[str, str]) -> Iterator[World]:
    with contextlib.ExitStack() as ended:
        database, store = None, f"sqlite:///{tmp_path / 'store.sqlite3'}"
        if request.param == "postgresql":
            database = ended.enter_context(Postgresql())
            store = database.create()
        yield ended.enter_context(World(tmp_path, base_settings, store, database))


def test_nothing_is_lost_doubled_or_misreported(world: World) -> None:
    seconds, seed = chosen()
    print(f'SMSGW_FAULTS="{seconds} {seed}"')
    asked = Asked()
    live(world, asked, seconds, seed)
    print(f"{len(asked.ids)} messages, {len(asked.cancelled)} cancelled; deaths: {dict(world.deaths)}")

    for modem in world.smsd.modems:
        modem.delay = 0.0  # what waits now is as much as the faults left
    wanted = asked.statuses
    settle(lambda: wanted.items() ^ world.statuses().items(), world.catch_up)
    for modem in world.smsd.modems:
        modem.wait_fetched(PATIENCE)

    entered = world.entrance.entered
    assert set(entered.values()) == {1}
    assert entered.keys() <= wanted.keys()
    assert {wanted[id] for id in wanted.keys() - entered.keys()} <= {"cancelled"}

    phones = world.phones()
    assert phones.keys() <= asked.ids.keys()
    for number, id in asked.ids.items():
        once = 0 if wanted[id] in ("failed", "cancelled") else 1
        assert once <= phones[number] <= once * (1 + world.excused[id]), (number, id)

    told = {(f"message.{event}", id) for id, status in wanted.items() for event in passed(status)}
    settle(lambda: told ^ world.heard("lvv"), world.hurry)
    settle(lambda: (told | world.received()) - world.heard("root"), world.hurry)
    assert {type for type, _ in world.heard("root") - told} <= {"message.received"}


def chosen() -> tuple[float, str]:
    """For how many seconds all parts are killed, and the seed of who and when."""
    seconds, _, seed = os.environ.get("SMSGW_FAULTS", str(SECONDS)).partition(" ")
    return float(seconds), seed or str(random.randrange(10**6))


def live(world: World, asked: Asked, seconds: float, seed: str) -> None:
    """Everybody is at it for that long, then what was begun is ended; what fails is raised."""

    def chance(who: str) -> random.Random:
        return random.Random(f"{seed} {who}")

    over = threading.Event()
    with ThreadPoolExecutor(20) as pool:
        runs: list[Future[None]] = []
        for number in range(CLIENTS):
            client = Client(number, world.server, asked, chance(f"client {number}"))
            runs.append(pool.submit(client.run, over))
        runs.append(pool.submit(world.receive, chance("receive"), over))
        runs += [pool.submit(world.torment, name, chance(name), over) for name in world.torments()]
        wait(runs, seconds, FIRST_COMPLETED)  # before the time is over nobody ends but by an error
        over.set()
    for run in runs:
        run.result()


def passed(status: str) -> tuple[str, ...]:
    """What receivers hear of a message that ends with that status."""
    return ("sent", status) if status in ("delivered", "undelivered") else (status,)


def settle(look: Callable[[], Any], help: Callable[[], object]) -> None:
    """Return when ``look`` finds nothing amiss any more; until then ``help`` is called now and then.

    :raises AssertionError: it still does after ``PATIENCE`` seconds.
    """
    until = time.monotonic() + PATIENCE
    while (amiss := look()) and time.monotonic() < until:
        help()
        threading.Event().wait(1)
    assert not amiss
