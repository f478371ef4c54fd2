"""The plugins of one application: found by name, configured, put in the order of the ini file, and checked.

Used by the application factory, once. Whatever is wrong is a ``ConfigurationError``, and the gateway does not start.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

import pluggy
from pyramid.config import Configurator

from smsgw import hookspecs
from smsgw.model import ConfigurationError
from smsgw.settings import nearest, pip_install, plugin_settings, read

GROUP = "smsgw.plugins"
MARK = f"{hookspecs.PROJECT}_impl"  # what @hookimpl leaves on a method
HOOKS = tuple(hook for hook in vars(hookspecs) if hasattr(getattr(hookspecs, hook), f"{hookspecs.PROJECT}_spec"))

log = logging.getLogger(__name__)


class Misbehaved(Exception):
    """A plugin gave an answer that its hook does not allow. The message names the plugin and says what is wrong."""

    def __init__(self, implementation: pluggy.HookImpl, sentence: str) -> None:
        super().__init__(f"the plugin {implementation.plugin_name!r} {sentence}")
        self.sentence = sentence


def load(names: tuple[str, ...], raw: Mapping[str, Any]) -> pluggy.PluginManager:
    """A plugin manager with those plugins, called in that order.

    :param raw: the application's settings; each plugin is given its own, ``smsgw.<name>.*``.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"smsgw.plugins names {name!r} twice; once is enough")
    classes = _find_all(names)
    for owner in plugin_settings(raw):
        if owner not in names:
            raise ConfigurationError(
                f"there are settings smsgw.{owner}.*, and smsgw.plugins does not name {owner!r}{nearest(owner, names)}"
            )
    plugins = {name: _create(name, classes[name], plugin_settings(raw).get(name, {})) for name in names}
    for name in reversed(names):  # pluggy calls the last registered first
        _register(manager, name, plugins[name])
    for hook, lack in (("authenticate", "knows users, so nobody gets in"), ("permits", "permits anything")):
        if not getattr(manager.hook, hook).get_hookimpls():
            log.warning("no plugin in smsgw.plugins %s", lack)
    return manager


def load_alone(name: str, raw: Mapping[str, Any]) -> pluggy.PluginManager:
    """A plugin manager with that plugin, with its settings, and no other one.

    :raises ConfigurationError: it cannot be loaded, or a setting of it is wrong.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    _register(manager, name, _create(name, find(name), plugin_settings(raw).get(name, {})))
    return manager


def implementations(hook: pluggy.HookCaller) -> list[pluggy.HookImpl]:
    """Who implements that hook, in the order of the ini file."""
    return hook.get_hookimpls()[::-1]


def ask(implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> Any:
    """The answer of one plugin. It is given the arguments that it takes. What it raises is logged with its name."""
    try:
        return implementation.function(*[arguments[name] for name in implementation.argnames])
    except Exception as error:
        blame(implementation, error)
        raise


def blame(implementation: pluggy.HookImpl, error: Exception) -> None:
    """Let the traceback of that exception say which plugin raised it."""
    note = f"raised by the plugin {implementation.plugin_name!r}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def kind(answer: object) -> str:
    """The type of a plugin's answer, for a log. Its value may be a secret."""
    if answer is None or isinstance(answer, bool):
        return repr(answer)
    if inspect.iscoroutine(answer):
        answer.close()  # or Python warns that it was never awaited
        return "a coroutine ('async def')"
    return "a generator ('yield')" if inspect.isgenerator(answer) else f"a value of type {type(answer).__name__!r}"


def asking(implementation: pluggy.HookImpl, argument: str) -> Callable[[Any], Any]:
    """``ask`` as a function of one argument."""
    return lambda value: ask(implementation, {argument: value})


def _create(name: str, plugin_class: type, raw: Mapping[str, Any]) -> Any:
    with _blamed(name):
        schema = getattr(plugin_class, "Settings", None)
        if schema is None and raw:
            raise ConfigurationError(f"it has no settings; take smsgw.{name}.{next(iter(raw))} out")
        return plugin_class(**(read(schema(), raw, f"smsgw.{name}.") if schema else {}))


@contextlib.contextmanager
def _blamed(name: str) -> Iterator[None]:
    """An exception in the block stops the start; the sentence names that plugin."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"the plugin {name!r}: {error}") from error
    except Exception as error:
        raise ConfigurationError(f"the plugin {name!r}: {type(error).__name__}: {error}") from error


def offers() -> EntryPoints:
    """The plugins of all installed distributions. Each of these is read for it, which takes some milliseconds."""
    return entry_points(group=GROUP)


def _find_all(names: Sequence[str]) -> dict[str, type]:
    """Their classes, by name. What several of them lack is told at once."""
    offered, classes, lacking = offers(), {}, []
    for name in names:
        try:
            classes[name] = find(name, offered)
        except Lacking as error:
            lacking.append(error)
    if len(lacking) == 1:
        raise lacking[0]
    if lacking:
        what = "; ".join(f"the plugin {each.name!r} needs the module {each.module!r}" for each in lacking)
        extras = [each.extra for each in lacking if each.extra]
        raise ConfigurationError(f"{what}; {pip_install(*extras)}" if extras else what)
    return classes


class Lacking(ConfigurationError):
    """A plugin needs a module that is not installed.

    :param extra: of smsgw, which brings the module; ``None``: it is no plugin of smsgw.
    """

    def __init__(self, name: str, module: str | None, extra: str | None) -> None:
        remedy = f"; {pip_install(extra)}" if extra else ""
        super().__init__(f"the plugin {name!r} needs the module {module!r}{remedy}")
        self.name, self.module, self.extra = name, module, extra


def find(name: str, offered: EntryPoints | None = None) -> type:
    """The class of the plugin of that name.

    :param offered: among which it is; ``None``: those that are installed.
    :raises ConfigurationError: there is none, or it cannot be loaded.
    """
    offered = offers() if offered is None else offered
    found = [offer for offer in offered if offer.name == name]
    if not found:
        raise ConfigurationError(
            f"smsgw.plugins names {name!r}, and no installed distribution has such a plugin"
            f"{nearest(name, offered.names)}"
        )
    if len(found) > 1:
        who = " and ".join(sorted(_distribution(offer) for offer in found))
        raise ConfigurationError(f"the plugin {name!r} is offered by {who}; uninstall all but one")
    try:
        plugin_class = found[0].load()
    except ModuleNotFoundError as error:
        raise Lacking(name, error.name, name if _distribution(found[0]) == "smsgw" else None) from error
    except Exception as error:
        raise ConfigurationError(f"the plugin {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not inspect.isclass(plugin_class):
        raise ConfigurationError(f"the plugin {name!r} should be a class, and {found[0].value} is none")
    return plugin_class


def hooks_of(plugin_class: type) -> tuple[str, ...]:
    """The hooks that a plugin implements, in the order in which a request passes them."""
    found = set()
    for name, method in inspect.getmembers(plugin_class, inspect.isfunction):
        if options := getattr(method, MARK, None):
            found.add(options.get("specname") or name)
    return tuple(hook for hook in HOOKS if hook in found)


def _distribution(offer: EntryPoint) -> str:
    return offer.dist.name if offer.dist else "an unknown distribution"


def _register(manager: pluggy.PluginManager, name: str, plugin: Any) -> None:
    for member, found in inspect.getmembers_static(plugin):
        function = getattr(found, "__func__", found)  # of a static method, one of the class, or a bound one
        if inspect.isfunction(function):
            _check(name, member, function, getattr(found, MARK, None) or getattr(function, MARK, None))
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise ConfigurationError(f"the plugin {name!r}: {' '.join(str(error).split())}") from error


def _check(name: str, method: str, function: Callable[..., Any], options: Mapping[str, Any] | None) -> None:
    """:raises ConfigurationError: the method is meant to be a hook, and cannot be one."""
    if options is None and method not in HOOKS:
        return
    if options is None:
        raise ConfigurationError(f"the plugin {name!r} has a method {method!r} that is not marked @hookimpl")
    hook = options.get("specname") or method
    if hook not in HOOKS:
        raise ConfigurationError(f"the plugin {name!r}: there is no hook {hook!r}{nearest(hook, HOOKS)}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"the plugin {name!r} has 'async def {method}', which nobody awaits; write 'def {method}'"
        )
    if options.get("tryfirst") or options.get("trylast"):
        raise ConfigurationError(f"the plugin {name!r}: the order is that of smsgw.plugins, not tryfirst or trylast")
    is_wrapper = options.get("wrapper") or options.get("hookwrapper")
    if is_wrapper and hook != "deliver":
        raise ConfigurationError(f"the plugin {name!r} wraps {hook!r}, and only 'deliver' can be wrapped")
    if options.get("hookwrapper"):
        raise ConfigurationError(f"the plugin {name!r} has hookwrapper=True; write wrapper=True and 'return (yield)'")
    if inspect.isgeneratorfunction(function) and not is_wrapper:
        advice = "mark it @hookimpl(wrapper=True)" if hook == "deliver" else "return the answer"
        raise ConfigurationError(f"the plugin {name!r} has a 'yield' in {method!r}, which answers nothing; {advice}")


def include_views(config: Configurator, manager: pluggy.PluginManager, names: Sequence[str]) -> None:
    """Let the plugins of those names add to HTTP, in their order."""
    for name in names:
        plugin: Any = manager.get_plugin(name)
        if hasattr(plugin, "includeme"):
            with _blamed(name):  # config.include takes two classes of one module for the same
                plugin.includeme(config)
