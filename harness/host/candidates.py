"""Plugins that may be loaded: built-in ones, entry points of other distributions, and the arguments of `-p`."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.errors import PluginError

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
class Candidate:
    """A plugin that may be loaded: its name, its import function, and its origin."""

    name: str
    load: Callable[[], object]
    distribution: str = ""
    version: str = ""
    is_built_in: bool = False  # part of this distribution, which is slow to find: looked up only for display


def built_in() -> Iterator[Candidate]:
    """Yield the plugins of this distribution."""
    for target in BUILT_IN:
        name = target.removeprefix("harness_plugins.")
        yield Candidate(name, partial(importlib.import_module, target), is_built_in=True)


def installed() -> Iterator[Candidate]:
    """Yield the entry points of other distributions that HARNESS_PLUGINS allows."""
    wanted = os.environ.get("HARNESS_PLUGINS")
    for entry in importlib.metadata.entry_points(group=GROUP):
        if wanted is None or entry.name in wanted.split(","):
            dist = entry.dist
            yield Candidate(entry.name, entry.load, dist.name if dist else "", dist.version if dist else "")


def named(target: str) -> Candidate:
    """Return the plugin of an argument of `-p`: a module by its dotted name, a file, or the folder of a package."""
    path = file_of(target)
    if path is None:
        return Candidate(target, partial(importlib.import_module, target))
    name = path.resolve().parent.name if path.name == "__init__.py" else path.stem
    return Candidate(name, partial(_import_file, path))


def file_of(target: str) -> Path | None:
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
