"""smsd: whether it runs, as whom, and what its own file says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from smsgw.cli.check.finding import Findings, Topic
from smsgw.cli.installation import Installation
from smsgw.settings import is_on
from smsgw.spool.daemon import Daemon, find_conf, find_daemon, started_with
from smsgw.spool.layout import read_smsd_conf
from smsgw.spool.modems import Modems

SMSD = Topic("smsd")

WANTED = (
    ("trust_outgoing", "smsd takes two messages a second at the most"),
    ("notifier", "smsd sees a message only at its next look, seconds later"),
)
KEPT = (
    ("sent", "nobody can know what was sent, and nothing can be cancelled"),
    ("failed", "messages that fail are deleted, and nothing can be cancelled"),
    ("report", "delivery reports lie among received messages"),
)


def check_settings(installation: Installation) -> Findings:
    """What smsd's own file says."""
    path = conf_of(installation)
    if path is None:
        yield SMSD.ok("smsgw.spool is set, and smsd's own settings are not known; smsgw.smsd_conf would tell them")
        return
    sections = read_smsd_conf(path)
    own = sections[""]
    if "simulator" in installation.smsgw.plugins:
        yield SMSD.error(
            f"the simulator takes the messages of the smsd of {path}", "Take simulator out of smsgw.plugins."
        )
    for key, harm in WANTED:
        if not is_on(own.get(key, "no")):
            yield SMSD.warning(f"{path} has no '{key} = yes', and {harm}", f"Add '{key} = yes' and restart smsd.")
    for key, harm in KEPT:
        if not own.get(key):
            yield SMSD.warning(
                f"{path} names no folder for '{key}', and {harm}",
                f"Make a folder that belongs to smsd's user, add '{key} = FOLDER', restart smsd and then the gateway.",
            )
    daemon = daemon_of(installation)
    is_running = daemon is not None and daemon.pid is not None
    yield from _check_modems(path, installation.layout.modems, sections, is_running)


def _check_modems(
    path: Path, modems: tuple[str, ...], sections: Mapping[str, Mapping[str, str]], is_running: bool
) -> Findings:
    """
    :param is_running: what is wrong with the modems of an smsd that runs is told elsewhere.
    """
    if not modems:
        yield SMSD.error(f"{path} names no modem", "Add 'devices = GSM1', and a section [GSM1].")
    for modem in modems:
        section = {key.lower(): value for key, value in sections.get(modem, {}).items()}
        device = section.get("device", "")
        if modem not in sections:
            yield SMSD.error(f"{path} has no section [{modem}]", "Add one, with the modem's device.")
        elif not device:
            yield SMSD.error(f"{path} names no device of {modem}", f"Add 'device = /dev/...' to [{modem}].")
        elif device.startswith("/") and not is_running and not Path(device).exists():
            yield SMSD.warning(f"there is no {device}, where the modem {modem} should be", "Is it plugged in?")
    queues = sections.get("queues") or sections.get("queue") or {}
    if not queues:
        yield SMSD.ok(f"smsd has the modems {', '.join(modems) or 'none'} and no queues")
        return
    yield SMSD.ok(f"smsd has the modems {', '.join(modems) or 'none'} and the queues {', '.join(queues)}")
    if not (sections.get("providers") or sections.get("provider")):
        yield SMSD.warning(
            f"{path} has [queues] and no [providers], so that messages that name no queue fail",
            "Add [providers], or set smsgw.default_queue.",
        )
    if modems and all(modem in sections for modem in modems):
        served = {word for modem in modems for word in _served(modem, sections[modem], queues)}
        for queue in queues:
            if queue not in served:
                yield SMSD.warning(f"no modem serves the queue {queue}", f"Add it to 'queues' of a modem in {path}.")


def _served(modem: str, section: Mapping[str, str], queues: Mapping[str, str]) -> Iterator[str]:
    """The queues that a modem serves; all of them where it does not say."""
    own = {key.lower(): value for key, value in section.items()}.get("queues")
    if own is None:
        yield from queues
    else:
        yield from (modem if word.lower() == "modemname" else word for word in re.split(r"[\s,]+", own))


def check_process(installation: Installation) -> Findings:
    """Whether smsd runs, and as whom."""
    path = conf_of(installation)
    if path is None:
        return
    daemon = daemon_of(installation)
    if daemon is None or daemon.pid is None:
        pidfile = started_with(path)["pidfile"]
        told = f"; it would run as {daemon}" if daemon else ""
        yield SMSD.error(
            f"smsd does not run: {pidfile} names no process of it{told}",
            "Start it, and see its log: systemctl start smstools",
        )
    else:
        yield SMSD.ok(f"smsd runs as {daemon}, process {daemon.pid}")
        yield from _check_living(installation, path)


def _check_living(installation: Installation, path: Path) -> Findings:
    """The modems of an smsd that runs."""
    settings = installation.smsgw.health
    found = Modems(installation.layout, path, Path(settings.stats) if settings.stats else None).look()
    if found.fault:
        yield SMSD.error(found.fault, found.remedy or "")
    for modem in found.modems:
        if modem.fault:
            kind = SMSD.warning if found.can_send else SMSD.error
            yield kind(f"the modem {modem.name} sends nothing: {modem.fault}", modem.remedy or "")


def conf_of(installation: Installation) -> Path | None:
    """smsd's own file."""
    return find_conf(installation.smsgw.smsd_conf, installation.layout.outgoing)


def daemon_of(installation: Installation) -> Daemon | None:
    """smsd as it runs, or would run."""
    path = conf_of(installation)
    return None if path is None else find_daemon(path, installation.layout.outgoing)
