"""Load plugins, call their hooks once, and store the registered objects by name, with their plugin."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from harness.errors import PluginError, choose
from harness.host import distribution, hookspecs
from harness.host.candidates import GROUP, Candidate, built_in, file_of, installed, named
from harness.host.origins import PLUGIN_ERRORS, Origin, describe, marked
from harness.host.registrars import REGISTRARS
from harness.host.registries import Registries

if TYPE_CHECKING:
    import click


OF_PLUGIN = "harness_plugin"  # attribute of the commands that plugins added


@dataclass(frozen=True)
class PluginInfo:
    """A line of `harness plugins`.

    `error` is the reason why the plugin did not load, or None; `seconds` is the time of its import and its hooks.
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    error: str | None = None
    seconds: float = 0.0


class PluginHost(Registries):
    """All plugins of one run: `host.tasks`, `host.families`, `host.laws` ... are registries by name."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = pluggy.PluginManager(GROUP)
        self.manager.add_hookspecs(hookspecs)
        self.candidates: dict[str, Candidate] = {}
        self.errors: dict[str, str] = {}
        self.extra: tuple[str, ...] = ()  # the arguments of -p, so that another process can load the same plugins
        self.seconds: dict[str, float] = {}
        self.commands: dict[str, str] = {}  # name of a command -> the plugin that added it

    def load(self, candidate: Candidate) -> None:
        """Import a plugin and call its hooks; if this fails, store the reason in `errors`, under its name."""
        name = candidate.name
        if name in self.candidates:
            self.errors[name] = f"two plugins are named {name!r}; rename one"
            return
        self.candidates[name] = candidate
        begun = time.perf_counter()
        try:
            with _no_terminal():
                self.add(candidate.load(), name)
        except PLUGIN_ERRORS as error:  # at import or in a hook; the message must name the plugin
            self.errors[name] = _why(error)
        self.seconds[name] = time.perf_counter() - begun

    def add(self, plugin: object, name: str) -> None:
        """Add a plugin object and call its hooks; raise any error of the plugin."""
        _check_names(plugin, name)
        self.manager.register(plugin, name=name)
        self.manager.check_pending()
        for hook, registrar in REGISTRARS.items():
            for call in getattr(self.manager.hook, hook).get_hookimpls():
                if call.plugin_name == name:
                    _expect_none(call.function(registrar(self, name)), hook)

    def add_commands(self, cli: click.Group) -> None:
        """Let plugins add sub-commands to a click group."""
        for call in self.manager.hook.register_commands.get_hookimpls():
            before = dict(getattr(cli, "commands", {}))
            begun = time.perf_counter()
            try:
                with _no_terminal():
                    _expect_none(call.function(cli), "register_commands")
            except PLUGIN_ERRORS as error:  # as in load
                self.errors[call.plugin_name] = _why(error)
            self.seconds[call.plugin_name] = self.seconds.get(call.plugin_name, 0.0) + time.perf_counter() - begun
            self._keep_commands(cli, before, call.plugin_name)

    def _keep_commands(self, cli: click.Group, before: Mapping[str, click.Command], plugin: str) -> None:
        """Note which commands a plugin added; undo and report what it replaced, except commands of another host."""
        for name, command in dict(getattr(cli, "commands", {})).items():
            is_left = name not in self.commands and hasattr(before.get(name), OF_PLUGIN)
            if command is not before.get(name) and (name not in before or is_left):
                self.commands[name] = plugin
                setattr(command, OF_PLUGIN, plugin)
                origin = Origin(plugin, "command", name)
                command.make_context = marked(command.make_context, origin)
                command.invoke = marked(command.invoke, origin)
            elif command is not before.get(name):
                cli.commands[name] = before[name]
                owner = f"{self.commands[name]!r}" if name in self.commands else "the harness"
                self.errors[plugin] = f"it registers the command {name!r}, already registered by {owner}"

    def check(self) -> None:
        """Raise PluginError if a plugin did not load."""
        for name, error in self.errors.items():
            raise PluginError(f"plugin {name!r} does not load: {error}; correct it, or disable it with -p no:{name}")

    def added(self) -> list[str]:
        """Return the plugins that were added as objects, which no other process can load."""
        return sorted({name for name, _ in self.manager.list_name_plugin()} - set(self.candidates))

    def ships(self, plugin: str) -> bool:
        """Tell whether a plugin is part of the harness."""
        return plugin in self.candidates and self.candidates[plugin].is_built_in

    def plugins(self) -> list[PluginInfo]:
        """List all plugins, loaded or failed, by name."""
        return [self._info(candidate) for _, candidate in sorted(self.candidates.items())]

    def _info(self, candidate: Candidate) -> PluginInfo:
        plugin = self.manager.get_plugin(candidate.name)
        callers = (self.manager.get_hookcallers(plugin) if plugin is not None else None) or []
        return PluginInfo(
            name=candidate.name,
            distribution=distribution.name() if candidate.is_built_in else candidate.distribution,
            version=distribution.version() if candidate.is_built_in else candidate.version,
            hooks=tuple(sorted(caller.name for caller in callers)),
            error=self.errors.get(candidate.name),
            seconds=round(self.seconds.get(candidate.name, 0.0), 4),
        )


def _expect_none(returned: object, hook: str) -> None:
    """Refuse what a hook returns, which would be lost; a hook with `yield` has not run at all."""
    if inspect.isgenerator(returned) or inspect.iscoroutine(returned):
        returned.close()
        raise PluginError(f"{hook} contains yield or is async, so that nothing is registered; make it a plain function")
    if returned is not None:
        raise PluginError(f"{hook} returned {returned!r}, which is ignored; call its argument for every object instead")


@contextmanager
def _no_terminal() -> Iterator[None]:
    """Send output to standard error and give no input, so that a plugin cannot mix with tables or wait for a reader."""
    before = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as nothing, redirect_stdout(sys.stderr):
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def _why(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, SystemExit):
        return describe(error)
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {' '.join(str(error).split())}"


def _check_names(plugin: object, name: str) -> None:
    """Refuse functions that resemble hooks but are not: a misspelt name, or a missing mark."""
    for attribute, function in inspect.getmembers(plugin, inspect.isroutine):
        if not attribute.startswith("register_"):
            continue
        if attribute not in hookspecs.HOOKS:
            raise PluginError(f"{name} defines {attribute}, which is not a hook; hooks are: {choose(hookspecs.HOOKS)}")
        if not hasattr(function, "harness_impl"):
            raise PluginError(f"{name} defines {attribute} without @harness.hookimpl; mark it")


def load_plugins(extra: Iterable[str] = ()) -> PluginHost:
    """Load the built-in plugins, the installed ones and `extra`.

    `extra` contains arguments of `-p`: a module, a file.py, the folder of a package, or no:NAME to disable a plugin.
    The environment variable HARNESS_PLUGINS, if set, lists the entry points to load, separated by commas; empty means
    none.
    """
    names = list(extra)
    off = {name.removeprefix("no:") for name in names if name.startswith("no:")}
    host = PluginHost()
    host.extra = tuple(str(path.resolve()) if (path := file_of(name)) else name for name in names)
    for candidate in (*built_in(), *installed(), *map(named, (n for n in names if not n.startswith("no:")))):
        if candidate.name not in off:
            host.load(candidate)
    return host


@cache
def default_host() -> PluginHost:
    """Return the default host of this process, for functions that are called without a host."""
    return load_plugins()
