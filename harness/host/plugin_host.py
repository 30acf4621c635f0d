"""Load plugins, call their hooks once, and store the registered objects by name, with their plugin."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from harness.errors import PluginError, choose
from harness.host import distribution, hookspecs
from harness.host.origins import PLUGIN_ERRORS, Origin, describe, marked
from harness.host.registrars import REGISTRARS
from harness.host.registries import Registries

if TYPE_CHECKING:
    import click

GROUP = "harness"
BUILT_IN = (
    "harness_plugins.engines.transformers",
    "harness_plugins.engines.vllm",
    "harness_plugins.metrics.choice",
    "harness_plugins.metrics.text",
    "harness_plugins.metrics.generation",
    "harness_plugins.metrics.references",
    "harness_plugins.checkers.answers",
    "harness_plugins.checkers.code",
    "harness_plugins.laws.breaks",
    "harness_plugins.laws.listing",
    "harness_plugins.laws.loss",
    "harness_plugins.laws.recipes",
    "harness_plugins.laws.sampling",
    "harness_plugins.laws.task",
    "harness_plugins.laws.baselines",
    "harness_plugins.laws.families",
    "harness_plugins.laws.isoflop",
    "harness_plugins.laws.observational",
    "harness_plugins.analyses.capabilities",
    "harness_plugins.analyses.decompose",
    "harness_plugins.analyses.trends",
    "harness_plugins.analyses.decide",
    "harness_plugins.analyses.rank",
    "harness_plugins.analyses.versus",
    "harness_plugins.analyses.task_predictability",
    "harness_plugins.analyses.active",
    "harness_plugins.analyses.forecast",
    "harness_plugins.executors.listing",
    "harness_plugins.forecasters",
    "harness_plugins.imports.importing",
    "harness_plugins.sources.bigbench",
    "harness_plugins.sources.lm_eval",
    "harness_plugins.samplers",
    "harness_plugins.panels.scaling",
    "harness_plugins.panels.predicted",
    "harness_plugins.panels.overview",
    "harness_plugins.panels.models",
    "harness_plugins.reporters",
    "harness_plugins.nano",
    "harness_tasks",
)


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


@dataclass(frozen=True)
class Candidate:
    """A plugin that may be loaded: its name, its import function, and its origin."""

    name: str
    load: Callable[[], object]
    distribution: str = ""
    version: str = ""
    is_built_in: bool = False  # part of this distribution, which is slow to find: looked up only for display


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
            with redirect_stdout(sys.stderr):  # output of a plugin must not mix with the tables of a command
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
                    call.function(registrar(self, name))

    def add_commands(self, cli: click.Group) -> None:
        """Let plugins add sub-commands to a click group."""
        for call in self.manager.hook.register_commands.get_hookimpls():
            before = dict(getattr(cli, "commands", {}))
            begun = time.perf_counter()
            try:
                with redirect_stdout(sys.stderr):
                    call.function(cli)
            except PLUGIN_ERRORS as error:  # as in load
                self.errors[call.plugin_name] = _why(error)
            self.seconds[call.plugin_name] = self.seconds.get(call.plugin_name, 0.0) + time.perf_counter() - begun
            for name, command in getattr(cli, "commands", {}).items():
                if command is not before.get(name):
                    self.commands[name] = call.plugin_name
                    origin = Origin(call.plugin_name, "command", name)
                    command.make_context = marked(command.make_context, origin)
                    command.invoke = marked(command.invoke, origin)

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
    host.extra = tuple(str(path.resolve()) if (path := _file_of(name)) else name for name in names)
    for candidate in (
        *_built_in(),
        *_installed(),
        *map(_named, (n for n in names if not n.startswith("no:"))),
    ):
        if candidate.name not in off:
            host.load(candidate)
    return host


@cache
def default_host() -> PluginHost:
    """Return the default host of this process, for functions that are called without a host."""
    return load_plugins()


def _built_in() -> Iterator[Candidate]:
    for target in BUILT_IN:
        name = target.removeprefix("harness_plugins.")
        yield Candidate(name, partial(importlib.import_module, target), is_built_in=True)


def _installed() -> Iterator[Candidate]:
    """Yield the entry points of other distributions that HARNESS_PLUGINS allows."""
    wanted = os.environ.get("HARNESS_PLUGINS")
    for entry in importlib.metadata.entry_points(group=GROUP):
        if wanted is None or entry.name in wanted.split(","):
            dist = entry.dist
            yield Candidate(entry.name, entry.load, dist.name if dist else "", dist.version if dist else "")


def _named(target: str) -> Candidate:
    """Return the plugin of an argument of `-p`: a module by its dotted name, a file, or the folder of a package."""
    path = _file_of(target)
    if path is None:
        return Candidate(target, partial(importlib.import_module, target))
    name = path.resolve().parent.name if path.name == "__init__.py" else path.stem
    return Candidate(name, partial(_import_file, path))


def _file_of(target: str) -> Path | None:
    """Return the file of an argument of `-p`, of a package its __init__.py; None for a module by its name."""
    path = Path(target)
    if os.sep in target and (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path if target.endswith(".py") else None


def _import_file(path: Path) -> object:
    if not path.is_file():
        raise PluginError(f"there is no file {path}")
    is_package = path.name == "__init__.py"  # its modules import each other by the name of the folder
    folder = path.resolve().parent
    name = folder.name if is_package else f"harness_plugin_file_{path.stem}"  # cannot collide with another module
    origin = getattr(sys.modules.get(name), "__file__", None)
    if is_package and name in sys.modules and origin != str(folder / path.name):
        raise PluginError(f"Python already has a module {name!r} ({origin}); rename the folder {folder}")
    places = [str(folder)] if is_package else None
    spec = importlib.util.spec_from_file_location(name, path.resolve(), submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module during execution
    spec.loader.exec_module(module)
    return module
