"""What smsgw costs, each figure beside one of the same minute: ``python tests/bench [--quick] [row ...]``.

Prints a Markdown table. Each row compares two things in turn, for many short rounds, and takes the medians: of both,
and of the rounds' ratios, since the machine's own speed changes from one to the next. The spools are made under
``TMPDIR``, which should be a disk's; nothing there is deleted before the end, since a file system that has just removed
tens of thousands of files is slow to make new ones (ext4 without a journal for up to five minutes: it passes over the
inodes just freed). So wait between two runs, or let the first one ``--keep`` its spools.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import draining
import receiving
import remembering
import servers
import tracking
from ulid import ULID

RECIPIENTS = 10_000
FEWER = 2_000  # messages, beside as many as ``Scale.files``
AT_ONCE, FEW = 20_000, 200
BULK = json.dumps({"mobiles": [f"7916{n:07}" for n in range(RECIPIENTS)], "text": "Hi, Jack!"}).encode()

BEFORE: list[str] = []  # the Python that has an earlier version, where one is to be compared

Measure = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Scale:
    """How long all takes: rounds of a comparison, seconds under load in each, sends before memory is read again,
    seconds in which smsd gets through what it can, messages in a large journal, files in a full folder."""

    rounds: int
    seconds: int
    sends: int
    drained: int
    messages: int
    files: int


FULL = Scale(rounds=21, seconds=1, sends=100_000, drained=60, messages=1_000_000, files=200_000)
QUICK = Scale(rounds=3, seconds=1, sends=5_000, drained=10, messages=50_000, files=10_000)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table: what is compared, the two figures as they read, their ratio, and what it should be."""

    what: str
    ours: str
    theirs: str
    ratio: float
    wanted: str
    is_met: bool


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under 90 seconds, and less exact")
    parser.add_argument("--keep", action="store_true", help="leave the spools where they are, and say where")
    parser.add_argument("--before", metavar="PYTHON", help="of a virtual environment that has an earlier version")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"only these: {' '.join(ROWS)}")
    arguments = parser.parse_args()
    if arguments.before:
        BEFORE.append(arguments.before)
    else:
        del ROWS["before"]
    for row in arguments.rows:
        if row not in ROWS:
            parser.error(f"there is no row {row!r}; there are: {' '.join(ROWS)}")
    signal.signal(signal.SIGTERM, _end)
    folder = Path(tempfile.mkdtemp(prefix="smsgw-bench-"))
    print("| what | smsgw | beside it | ratio | wanted |  |\n|---|---|---|---|---|---|")
    try:
        met = True
        for name in arguments.rows or ROWS:
            begin = time.monotonic()
            own = folder / name
            own.mkdir()
            found = ROWS[name](own, QUICK if arguments.quick else FULL)
            met &= found.is_met
            verdict = "" if found.is_met else "**missed**"
            print(f"| {found.what} | {found.ours} | {found.theirs} | {found.ratio:.2f} | {found.wanted} | {verdict} |")
            sys.stdout.flush()
            sys.stderr.write(f"{name}: {time.monotonic() - begin:.0f} s\n")
    finally:
        if arguments.keep:
            sys.stderr.write(f"the spools are in {folder}\n")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if met else 1


def in_turn(rounds: int, ours: Measure, theirs: Measure) -> tuple[float, float, float]:
    """The medians of both and of their ratio in each round; whoever was second goes first in the next."""
    found: dict[Measure, list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        for measure in (ours, theirs) if number % 2 else (theirs, ours):
            found[measure].append(measure())
    sys.stderr.write("".join(f"  {' '.join(f'{value:.4g}' for value in values)}\n" for values in found.values()))
    ratios = [one / other for one, other in zip(found[ours], found[theirs], strict=True)]
    return statistics.median(found[ours]), statistics.median(found[theirs]), statistics.median(ratios)


def a_second(count: int, took: tuple[float, float, float]) -> tuple[float, float, float]:
    """Rates of the times that so many took."""
    ours, theirs, ratio = took
    return count / ours, count / theirs, 1 / ratio


def at_least(what: str, ours: float, theirs: float, ratio: float, unit: str, least: float, aim: float) -> Result:
    wanted = f"at least {least:g}, aim {aim:g}"
    return Result(what, f"{ours:,.0f} {unit}", f"{theirs:,.0f} {unit}", ratio, wanted, ratio >= least)


def at_most(what: str, ours: str, theirs: str, ratio: float, most: float, aim: float) -> Result:
    return Result(what, ours, theirs, ratio, f"at most {most:g}, aim {aim:g}", ratio <= most)


def send(folder: Path, scale: Scale) -> Result:
    with servers.smsgw(_made(folder / "smsgw")) as ours, servers.bare(_made(folder / "bare")) as theirs:
        _warm_up(ours, theirs)
        rates = in_turn(scale.rounds, lambda: ours.rate(scale.seconds), lambda: theirs.rate(scale.seconds))
    what = "Single sends with authentication, policy, transforms and spool; a bare Pyramid + Cornice view, no spool"
    return at_least(what, *rates, "/s", 1.0, 1.5)


def v2(folder: Path, scale: Scale) -> Result:
    with servers.smsgw(_made(folder / "smsgw")) as server:
        server.v2_rate(1)
        rates = in_turn(scale.rounds, lambda: server.v2_rate(scale.seconds), lambda: server.rate(scale.seconds))
    return at_least("Single sends by the v2 API; by v1.0", *rates, "/s", 0.9, 1.0)


def processes(folder: Path, scale: Scale) -> Result:
    with servers.gunicorn(_made(folder / "two"), 2) as two, servers.gunicorn(_made(folder / "one"), 1) as one:
        _warm_up(two, one)
        rates = in_turn(scale.rounds, lambda: two.rate(scale.seconds), lambda: one.rate(scale.seconds))
    return at_least("Single sends with two gunicorn processes; with one", *rates, "/s", 1.6, 1.9)


def granian(folder: Path, scale: Scale, connections: int, least: float, aim: float, *, fsync: bool = True) -> Result:
    """As production.ini has it, against a bare view on waitress as production.ini has that."""
    with (
        servers.granian(_made(folder / "smsgw"), fsync=fsync) as smsgw,
        servers.bare(_made(folder / "bare"), servers.PRODUCTION) as bare,
    ):
        _warm_up(smsgw, bare)
        ours, theirs = (dataclasses.replace(each, connections=connections) for each in (smsgw, bare))
        rates = in_turn(scale.rounds, lambda: ours.rate(scale.seconds), lambda: theirs.rate(scale.seconds))
    how = f"{'synced' if fsync else 'not synced'}, connections: {connections}"
    what = f"Single sends under granian, {how}; a bare view on waitress with four threads"
    return at_least(what, *rates, "/s", least, aim)


def granian_sync(folder: Path, scale: Scale) -> Result:
    with (
        servers.granian(_made(folder / "synced")) as synced,
        servers.granian(_made(folder / "not"), fsync=False) as not_synced,
    ):
        _warm_up(synced, not_synced)
        rates = in_turn(scale.rounds, lambda: synced.rate(scale.seconds), lambda: not_synced.rate(scale.seconds))
    return at_least("Single sends under granian, 16 connections, synced; not synced", *rates, "/s", 0.7, 0.9)


def granian_late(folder: Path, scale: Scale) -> Result:
    with (
        servers.granian(_made(folder / "smsgw")) as ours,
        servers.bare(_made(folder / "bare"), servers.PRODUCTION) as theirs,
    ):
        _warm_up(ours, theirs)
        took = in_turn(scale.rounds, lambda: ours.late(scale.seconds), lambda: theirs.late(scale.seconds))
    what = "99th percentile of single sends under granian, synced, 16 connections; of a bare view on waitress"
    return at_most(what, f"{took[0] * 1e3:.0f} ms", f"{took[1] * 1e3:.0f} ms", took[2], 1.0, 0.5)


def waitress(folder: Path, scale: Scale) -> Result:
    with (
        servers.production(_made(folder / "smsgw"), fsync=False) as ours,
        servers.bare(_made(folder / "bare"), servers.PRODUCTION) as theirs,
    ):
        _warm_up(ours, theirs)
        rates = in_turn(scale.rounds, lambda: ours.rate(scale.seconds), lambda: theirs.rate(scale.seconds))
    return at_least("Single sends, not synced, four threads of waitress; a bare view on it", *rates, "/s", 0.95, 1.1)


def before(folder: Path, scale: Scale) -> Result:
    """Needs ``--before``."""
    with (
        servers.production(_made(folder / "now")) as now,
        servers.production(_made(folder / "before"), python=BEFORE[0]) as then,
    ):
        _warm_up(now, then)
        rates = in_turn(scale.rounds, lambda: now.rate(scale.seconds), lambda: then.rate(scale.seconds))
    return at_least("Single sends; by an earlier version", *rates, "/s", 1.0, 1.0)


def bulk(folder: Path, scale: Scale) -> Result:
    with servers.production(_made(folder / "smsgw")) as server, server.client() as client:
        return _against_a_loop(folder, scale, server, client, "each synced; a loop that writes and renames such files")


def unsynced(folder: Path, scale: Scale) -> Result:
    with servers.production(_made(folder / "smsgw"), fsync=False) as server, server.client() as client:
        return _against_a_loop(folder, scale, server, client, "not synced; such a loop")


def _against_a_loop(folder: Path, scale: Scale, server: servers.Server, client: servers.Client, how: str) -> Result:
    _, reply = client.request("POST", servers.OUTGOING, BULK)
    one = next(iter(json.loads(reply)["message_id"].values()))
    content = (server.spool / "outgoing" / one).read_bytes()
    # Beside the server's own: ext4 gives the files of a folder the inodes near it, and some are slower to get.
    beside = server.spool / "outgoing" / ".smsgw" / "bench"
    renamed = _made(folder / "renamed")
    beside.mkdir()
    took = in_turn(
        scale.rounds // 3,
        lambda: _send_bulk(client),
        lambda: _write_files(_made(beside / str(ULID())), renamed, content),
    )
    what = f"Files a second, one request with {RECIPIENTS:,} recipients, {how}"
    return at_least(what, *a_second(RECIPIENTS, took), "/s", 0.8, 0.9)


def sync(folder: Path, scale: Scale) -> Result:
    with (
        servers.smsgw(_made(folder / "synced"), fsync=True) as synced,
        servers.smsgw(_made(folder / "not")) as not_synced,
        synced.client() as ours,
        not_synced.client() as theirs,
    ):
        _send_bulk(ours)
        _send_bulk(theirs)
        took = in_turn(scale.rounds // 3, lambda: _send_bulk(ours), lambda: _send_bulk(theirs))
    return at_least("The same request, synced to disk; not synced", *a_second(RECIPIENTS, took), "/s", 0.5, 0.75)


def hashed(folder: Path, scale: Scale) -> Result:
    with servers.smsgw(_made(folder / "smsgw")) as server:
        what = "Single sends of a user with a bcrypt-12 password, second request on; with {SHA}"
        return _as_users(server, scale, what, servers.BCRYPT, 1.0)


def token(folder: Path, scale: Scale) -> Result:
    """As production.ini has it: four threads, and each send synced."""
    plugins = f"token {servers.PLUGINS}"
    with servers.smsgw(_made(folder / "smsgw"), plugins=plugins, fsync=True, threads=servers.PRODUCTION) as server:
        what = "Single sends with an API token, each synced, four threads; with htpasswd"
        return _as_users(server, scale, what, servers.token(server), 1.0, least=0.75)


def provided(folder: Path, scale: Scale) -> Result:
    settings, authorization = servers.provider(_made(folder / "provider"))
    plugins = f"jwt {servers.PLUGINS}"
    with servers.smsgw(_made(folder / "smsgw"), plugins=plugins, settings=settings) as server:
        what = "Single sends with a token of an identity provider, second request on; with htpasswd"
        return _as_users(server, scale, what, authorization, 1.0)


def ldap(folder: Path, scale: Scale) -> Result:
    with (
        servers.ldap(_made(folder / "ldap")) as ours,
        servers.smsgw(_made(folder / "htpasswd")) as theirs,
    ):
        _warm_up(ours, theirs)
        rates = in_turn(scale.rounds, lambda: ours.rate(scale.seconds), lambda: theirs.rate(scale.seconds))
    what = "Single sends of a user of a directory, second request on; of one with htpasswd"
    return at_least(what, *rates, "/s", 0.9, 1.0)


def quota(folder: Path, scale: Scale) -> Result:
    """Three limits that apply and never refuse, as production.ini has it: four threads, and each send synced."""
    limits = f"smsgw.quota.limits =\n    sha: {10**9}/minute {10**9} parts/month\n    *: {10**9}/second\n"
    plugins = f"{servers.PLUGINS} quota"
    with (
        servers.smsgw(
            _made(folder / "on"), plugins=plugins, settings=limits, fsync=True, threads=servers.PRODUCTION
        ) as on,
        servers.smsgw(_made(folder / "off"), fsync=True, threads=servers.PRODUCTION) as off,
    ):
        _warm_up(on, off)
        rates = in_turn(scale.rounds, lambda: on.rate(scale.seconds), lambda: off.rate(scale.seconds))
    what = "Single sends, each synced, four threads, under three limits of quota; without it"
    return at_least(what, *rates, "/s", 0.75, 0.9)


def _as_users(server: servers.Server, scale: Scale, what: str, ours: str, aim: float, least: float = 0.9) -> Result:
    """Sends with that ``Authorization`` against those with a {SHA} password."""
    for authorization in (ours, servers.SHA):
        server.load(1, authorization)
    rates = in_turn(
        scale.rounds, lambda: server.rate(scale.seconds, ours), lambda: server.rate(scale.seconds, servers.SHA)
    )
    return at_least(what, *rates, "/s", least, aim)


def memory(folder: Path, scale: Scale) -> Result:
    with servers.smsgw(_made(folder / "smsgw")) as server:
        early, first = _memory_after(server, 1000, 0)
        late, last = _memory_after(server, scale.sends, early)
    what = f"Memory after {late:,} sends; after {early:,}"
    return at_most(what, f"{last / 1e6:.1f} MB", f"{first / 1e6:.1f} MB", last / first, 1.1, 1.0)


def followed_memory(folder: Path, scale: Scale) -> Result:
    """Of a process that has followed them, and of one that finds them in the journal; the larger of both counts."""
    found = []
    for name, count in (("many", scale.files), ("few", FEWER)):
        own = _made(folder / name)
        after = remembering.followed(own, count)
        found.append((after, remembering.idle(own, 1)[2]))
    many, few = (max(each) for each in found)
    sys.stderr.write("".join(f"  {one / 1e6:.1f} MB, {other / 1e6:.1f} MB\n" for one, other in found))
    what = f"Memory with {scale.files:,} messages in `sent`, and after following as many; with {FEWER:,}"
    return at_most(what, f"{many / 1e6:.1f} MB", f"{few / 1e6:.1f} MB", many / few, 1.2, 1.0)


def first(folder: Path, scale: Scale) -> Result:
    """Of processes that have just started, each asked once."""
    many, few = _made(folder / "many"), _made(folder / "few")
    for own, count in ((many, scale.files), (few, FEWER)):
        remembering.rebuild(remembering.prepared(own, count))
    rounds: dict[Path, list[tuple[float, float]]] = {many: [], few: []}
    for _ in range(max(scale.rounds // 4, 1)):
        for own, took in rounds.items():
            took.append(remembering.first(own))
    lists, searches = ([statistics.median(each) for each in zip(*rounds[own], strict=True)] for own in (many, few))
    (ours, found), (theirs, sought) = lists, searches
    what = f"First list of v1; first search, of a process with {scale.files:,} files; beside it with {FEWER:,}"
    ms = [f"{one * 1e3:.0f} ms; {other * 1e3:.0f} ms" for one, other in ((ours, found), (theirs, sought))]
    ratio = max(ours / theirs, found / sought)
    return Result(what, *ms, ratio, "at most 300 ms", max(ours, found) <= 0.3)


def idle(folder: Path, scale: Scale) -> Result:
    """Nobody talks to the server, and nothing happens in its spool."""
    found = []
    for name, count in (("many", scale.files), ("few", FEWER)):
        own = _made(folder / name)
        remembering.rebuild(remembering.prepared(own, count))
        found.append(remembering.idle(own, scale.drained))
    (ours, wakes, _), (theirs, others, _) = found
    what = (
        f"Processor time of an idle process over {scale.drained} s, and wake-ups, with {scale.files:,} files in "
        f"`sent`; with {FEWER:,}"
    )
    shown = [f"{spent:.2f} s, {often:.1f} /s" for spent, often in ((ours, wakes), (theirs, others))]
    wanted = "under 0.3 s and 5 /s"
    return Result(what, *shown, (ours or 0.01) / (theirs or 0.01), wanted, ours < 0.3 and wakes < 5)


def told(folder: Path, scale: Scale) -> Result:
    return _told(folder, scale, "From smsd's move to `sent` to `notify`, median", lambda ear: ear.hear_of_sent(), 50)


def reported(folder: Path, scale: Scale) -> Result:
    """The report comes at once after its message was told of, when the follower rests."""
    return _told(folder, scale, "From a status report to `notify`, median", lambda ear: ear.hear_of_report(), 100)


def _told(folder: Path, scale: Scale, what: str, hear: Callable[[tracking.Ear], float], most: int) -> Result:
    """Of a plugin whose gateway has a large journal, and of one that has an empty one.

    :param most: milliseconds that the former may take.
    """
    with (
        tracking.ear(_made(folder / "large"), scale.messages) as ours,
        tracking.ear(_made(folder / "small"), 0) as theirs,
    ):
        hear(ours), hear(theirs)
        took = in_turn(scale.rounds, lambda: hear(ours), lambda: hear(theirs))
    shown = [f"{each * 1e3:.0f} ms" for each in took[:2]]
    what = f"{what}, with {scale.messages:,} messages in the journal; with none"
    return Result(what, *shown, took[2], f"at most {most} ms", took[0] <= most / 1e3)


def webhook(folder: Path, scale: Scale) -> Result:
    with (
        receiving.line(_made(folder / "beside"), dead=receiving.DEAD) as ours,
        receiving.line(_made(folder / "alone")) as theirs,
    ):
        took = in_turn(scale.rounds, ours.hear_of_sent, theirs.hear_of_sent)
    found = at_most(
        f"From smsd's move to `sent` to the webhook's arrival, median, beside {receiving.DEAD} receivers that never "
        "answer; alone",
        *(f"{each * 1e3:.0f} ms" for each in took[:2]),
        ratio=took[2],
        most=1.5,
        aim=1.0,
    )
    return dataclasses.replace(found, wanted=f"{found.wanted}, 100 ms", is_met=found.is_met and max(took[:2]) < 0.1)


def followed(folder: Path, scale: Scale) -> Result:
    """All that follows messages, with somebody who hears of them."""
    with (
        servers.smsgw(_made(folder / "on"), plugins=receiving.PLUGIN, settings=receiving.SETTINGS) as on,
        servers.smsgw(_made(folder / "off")) as off,
        receiving.Receiver() as receiver,
    ):
        receiving.register(on, receiver.url)
        _warm_up(on, off)
        rates = in_turn(scale.rounds, lambda: on.rate(scale.seconds), lambda: off.rate(scale.seconds))
    return at_least("Single sends with webhooks; without them", *rates, "/s", 0.8, 0.95)


def page(folder: Path, scale: Scale) -> Result:
    many, few = scale.messages, 10_000
    with (
        remembering.indexed(_made(folder / "many"), many) as ours,
        remembering.indexed(_made(folder / "few"), few) as theirs,
    ):
        ours.page(), theirs.page()
        took = in_turn(scale.rounds, ours.page, theirs.page)
    what = f"A page of 100 by user, status and time, of a journal of {many:,} messages; of {few:,}"
    return at_most(what, f"{took[0] * 1e3:.1f} ms", f"{took[1] * 1e3:.1f} ms", took[2], 1.5, 1.0)


def status(folder: Path, scale: Scale) -> Result:
    many, few = scale.messages, 10_000
    with (
        remembering.indexed(_made(folder / "many"), many) as ours,
        remembering.indexed(_made(folder / "few"), few) as theirs,
    ):
        ours.status(), theirs.status()
        took = in_turn(scale.rounds, ours.status, theirs.status)
    what = f"Status of one message, of a journal of {many:,} messages; of {few:,}"
    return at_most(what, f"{took[0] * 1e3:.2f} ms", f"{took[1] * 1e3:.2f} ms", took[2], 1.5, 1.0)


def rebuild(folder: Path, scale: Scale) -> Result:
    """Of files whose names are not in order; nothing but the reading of them beside it."""
    count = scale.messages // 10
    ini = remembering.prepared(_made(folder / "spool"), count)
    rates = a_second(count, in_turn(1, lambda: remembering.rebuild(ini), lambda: remembering.read(folder / "spool")))
    found = at_least(f"The journal made of {count:,} files; the files read", *rates, "/s", 0.0, 1.0)
    return dataclasses.replace(found, wanted="at least 5,000 /s", is_met=rates[0] >= 5000)


def modems(folder: Path, scale: Scale) -> Result:
    def drain(name: str, count: int) -> float:
        with draining.line(_made(folder / name), AT_ONCE) as line:
            return line.rate(count, scale.drained)

    rates = in_turn(1, lambda: drain("many", AT_ONCE), lambda: drain("few", FEW))
    what = (
        f"{AT_ONCE:,} messages posted at once, through smsd on {draining.MODEMS} emulated modems that take "
        f"{draining.TAKES:g} s each: messages a second over the first {scale.drained} s; {FEW} posted at once"
    )
    return at_least(what, *rates, "/s", 0.8, 1.0)


ROWS: dict[str, Callable[[Path, Scale], Result]] = {
    "before": before,
    "send": send,
    "waitress": waitress,
    "granian-1": lambda folder, scale: granian(folder, scale, 1, 1.0, 1.2),
    "granian-16": lambda folder, scale: granian(folder, scale, 16, 2.5, 3.5),
    "granian-1-unsynced": lambda folder, scale: granian(folder, scale, 1, 1.0, 1.2, fsync=False),
    "granian-16-unsynced": lambda folder, scale: granian(folder, scale, 16, 2.5, 3.5, fsync=False),
    "granian-sync": granian_sync,
    "granian-late": granian_late,
    "v2": v2,
    "processes": processes,
    "bulk": bulk,
    "unsynced": unsynced,
    "sync": sync,
    "bcrypt": hashed,
    "token": token,
    "jwt": provided,
    "ldap": ldap,
    "quota": quota,
    "memory": memory,
    "followed-memory": followed_memory,
    "first": first,
    "idle": idle,
    "told": told,
    "reported": reported,
    "webhook": webhook,
    "followed": followed,
    "modems": modems,
    "page": page,
    "status": status,
    "rebuild": rebuild,
}


def _warm_up(*warmed: servers.Server) -> None:
    for server in warmed:
        server.load(1)


def _send_bulk(client: servers.Client) -> float:
    took, reply = client.request("POST", servers.OUTGOING, BULK)
    if len(json.loads(reply)["message_id"]) != RECIPIENTS:
        raise RuntimeError(f"not all were sent: {reply[:300]!r}")
    return took


def _write_files(made: Path, renamed: Path, content: bytes, count: int = RECIPIENTS) -> float:
    """Seconds that it takes to make such files in one folder and to move them to another."""
    names = [f"smsgw.http.{ULID()}" for _ in range(count)]
    source, target = os.open(made, os.O_RDONLY), os.open(renamed, os.O_RDONLY)
    begin = time.perf_counter()
    for name in names:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660, dir_fd=source)
        os.write(fd, content)
        os.close(fd)
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    took = time.perf_counter() - begin
    os.close(source)
    os.close(target)
    return took


def _memory_after(server: servers.Server, sends: int, sent: int) -> tuple[int, int]:
    """How many were sent in all by then, at least ``sends``, and the server's resident bytes."""
    while sent < sends:
        sent += server.load(1 if sends - sent < 5000 else 3)[0]
    return sent, server.memory()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
