"""What plugins call to register objects: one registrar per hook, which validates what it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from harness.errors import PluginError, choose
from harness.host.hookspecs import Register
from harness.host.origins import Origin, mark_checker, mark_engine, mark_metric, marked
from harness.host.registries import Registries, Source, singular
from harness.types import (
    PASS_AT,
    Check,
    Checker,
    EngineType,
    Family,
    Floats,
    InspectCheckpoint,
    Metric,
    MetricValues,
    OpenEngine,
    Outcome,
    SourceMetric,
    Task,
)
from harness.types.laws import REQUIRED, Law, misspelt
from harness.types.metrics import UNBOUNDED

F = TypeVar("F", bound=Callable[..., object])
Registrar = Callable[["Registries", str], Register]
NEEDS = (
    "answers",
    "choices",
    "cloze",
    "greedy",
    "one_gold",
    "references",
    "samples",
    *(f"samples_{k}" for k in PASS_AT),
    "several_gold",
    "text",
    "token_counts",
    "two_choices",
    "unconditional",
    "words",
)
NUMBERS = (int, float, np.number)
AGGREGATES = ("mean", "ratio", "exp_ratio")


def _path_or(value_type: type, registry: str) -> Registrar:
    """Return a registrar for files (the file or folder gives the name) and for values."""

    def registrar(registries: Registries, plugin: str) -> Register:
        def register(value: object) -> None:
            if not isinstance(value, (value_type, str, Path)):
                raise PluginError(f"{plugin} registers {value!r}; expected a path or a harness.{value_type.__name__}")
            name = value.name if isinstance(value, (Task, Family)) else _file_name(Path(str(value)))
            getattr(registries, registry).add(name, value, plugin)

        return register

    return registrar


def _file_name(path: Path) -> str:
    if not path.exists():
        raise PluginError(f"{path} does not exist; register the path of an existing file or folder")
    return path.parent.name if path.name == "task.yaml" else path.stem


def _sources(registries: Registries, plugin: str) -> Register:
    def register(
        prefix: str,
        resolve: Callable[..., Task | Sequence[Task]],
        list_names: Callable[[], Iterable[str]],
        metrics: Callable[..., Sequence[SourceMetric]] | None = None,
        groups: Callable[..., Sequence[SourceMetric]] | None = None,
    ) -> None:
        origin = Origin(plugin, "source", prefix)
        resolve, list_names = (_callable(resolve, prefix), _callable(list_names, prefix))
        measures = [
            None if measure is None else marked(_callable(measure, prefix), origin) for measure in (metrics, groups)
        ]
        registries.sources.add(prefix, Source(marked(resolve, origin), marked(list_names, origin), *measures), plugin)

    return register


def _engines(registries: Registries, plugin: str) -> Register:
    def register(
        name: str,
        open_engine: OpenEngine,
        inspect: InspectCheckpoint,
        preferred: Callable[[], bool] = bool,
        modules: tuple[str, ...] = (),
        install: Callable[[], str] | None = None,
        adapters: bool = False,
        tokens: bool = False,
    ) -> None:
        functions = (_callable(open_engine, name), _callable(inspect, name), _callable(preferred, name))
        made = EngineType(name, *functions, modules, install, adapters, tokens)
        engine = mark_engine(made, Origin(plugin, "engine", name))
        registries.engines.add(name, engine, plugin)

    return register


def make_metric(
    fn: Callable[..., MetricValues],
    name: str | None = None,
    needs: str | Sequence[str] = (),
    aggregate: str | Callable[..., Floats] = "mean",
    higher_is_better: bool = True,
    bounds: tuple[float, float] = UNBOUNDED,
    modules: tuple[str, ...] = (),
    by_name: bool = False,
) -> Metric:
    """Return a metric as it is registered; raise PluginError if it is not valid."""
    name = str(name or getattr(fn, "__name__", ""))
    if not isinstance(needs, Iterable):
        raise PluginError(f"metric {name!r}: needs={needs!r}; expected a list of: {choose(NEEDS)}")
    needs = (needs,) if isinstance(needs, str) else tuple(needs)
    unknown = set(needs) - set(NEEDS)
    if unknown:
        raise PluginError(f"metric {name!r} needs {choose(unknown)}; scores may offer: {choose(NEEDS)}")
    if not callable(aggregate) and aggregate not in AGGREGATES:
        raise PluginError(
            f"metric {name!r}: aggregate={aggregate!r}; expected one of {choose(AGGREGATES)}, or a function"
        )
    low, high = bounds if isinstance(bounds, Sequence) and _are_two_numbers(bounds) else (0, 0)
    if not low < high:
        raise PluginError(f"metric {name!r}: bounds={bounds!r}; expected (lowest, highest) possible value")
    ends = (float(low), float(high))
    return Metric(name, _callable(fn, name), needs, aggregate, higher_is_better, ends, modules, by_name)


def _metrics(registries: Registries, plugin: str) -> Register:
    def register(
        fn: Callable[..., MetricValues],
        name: str | None = None,
        needs: str | Sequence[str] = (),
        aggregate: str | Callable[..., Floats] = "mean",
        higher_is_better: bool = True,
        bounds: tuple[float, float] = UNBOUNDED,
        known_as: Sequence[str] = (),
        modules: tuple[str, ...] = (),
        by_name: bool = False,
    ) -> None:
        metric = make_metric(fn, name, needs, aggregate, higher_is_better, bounds, modules, by_name)
        registries.metrics.add(metric.name, mark_metric(metric, Origin(plugin, "metric", metric.name)), plugin)
        registries.metrics.elsewhere.update(dict.fromkeys(known_as, metric.name))

    return register


def make_checker(
    name: str,
    check: Callable[..., Outcome | Check],
    version: str = "1",
    executes_code: bool = False,
    prepare: Callable[[], Sequence[str]] | None = None,
    takes: str = "",
) -> Checker:
    """Return a checker as it is registered; raise PluginError if a value is invalid."""
    if not isinstance(name, str) or not name or ":" in name:
        raise PluginError(f"a checker is named {name!r}; expected text without a colon")
    checker = Checker(name, _callable(check, name), version, executes_code, prepare, takes)
    if not isinstance(checker.version, str) or not checker.version:
        raise PluginError(f"checker {name!r}: version={checker.version!r}; expected text, such as '1'")
    if checker.prepare is not None:
        _callable(checker.prepare, f"{name}, prepare=")
    return checker


def _checkers(registries: Registries, plugin: str) -> Register:
    def register(
        name: str,
        check: Callable[..., Outcome | Check],
        version: str = "1",
        executes_code: bool = False,
        prepare: Callable[[], Sequence[str]] | None = None,
        takes: str = "",
    ) -> None:
        checker = make_checker(name, check, version, executes_code, prepare, takes)
        registries.checkers.add(name, mark_checker(checker, Origin(plugin, "checker", name)), plugin)

    return register


def expect_law(law: Law) -> None:
    """Raise a PluginError that says what is missing if an object is not a law."""
    if isinstance(law, type):
        raise PluginError(f"the law {law.__name__} is a class; register an instance: {law.__name__}()")
    kind = "composed" if hasattr(law, "steps") else "procedure" if hasattr(law, "fit") else "formula"
    missing = [attribute for attribute in REQUIRED[kind] if not hasattr(law, attribute)]
    if missing:
        raise PluginError(f"the law {law!r} lacks {choose(missing)}; expected {', '.join(REQUIRED[kind])}")
    if not law.name or not isinstance(law.name, str):
        raise PluginError(f"the law {law!r} has the name {law.name!r}; expected text")
    features = getattr(law, "features", ())
    if isinstance(features, str):
        raise PluginError(f"law {law.name!r}: features = {features!r}; expected a tuple of names, ({features!r},)")
    if kind == "formula":
        _expect_bounds(law)
    for name, meant in misspelt(law, kind):
        raise PluginError(
            f"law {law.name!r} has an attribute {name!r}, which is not in the contract; did you mean {meant!r}? "
            f"Otherwise rename it to _{name}"
        )


def _are_two_numbers(bounds: Sequence[object]) -> bool:
    return len(bounds) == 2 and all(isinstance(end, NUMBERS) for end in bounds)


def _expect_bounds(law: Law) -> None:
    """Raise a PluginError unless each parameter of a formula has a lower bound below an upper one."""
    parameters = getattr(law, "parameters", None)
    expected = "expected a dict from names to (lower, upper), with lower < upper"
    if not isinstance(parameters, Mapping):
        raise PluginError(f"law {law.name!r}: parameters = {parameters!r}; {expected}")
    for name, bounds in parameters.items():
        is_pair = isinstance(bounds, (tuple, list)) and _are_two_numbers(bounds)
        if not is_pair or not bounds[0] < bounds[1]:
            raise PluginError(f"law {law.name!r}: the bounds of {name!r} are {bounds!r}; {expected}")


def _laws(registries: Registries, plugin: str) -> Register:
    def register(law: Law) -> None:
        expect_law(law)
        registries.laws.add(law.name, law, plugin)

    return register


def expect_forecaster(forecaster: object) -> str:
    """Return the name of a forecaster; raise a PluginError that says what is missing if an object is not one."""
    if isinstance(forecaster, type):
        raise PluginError(
            f"the forecaster {forecaster.__name__} is a class; register an instance: {forecaster.__name__}()"
        )
    name = getattr(forecaster, "name", None)
    if not name or not isinstance(name, str):
        raise PluginError(f"the forecaster {forecaster!r} has the name {name!r}; expected text")
    if not callable(getattr(forecaster, "draw", None)):
        raise PluginError(f"forecaster {name!r} lacks draw; expected a method draw(batch, rng)")
    untried = getattr(forecaster, "untried", 1.0)
    if not isinstance(untried, (int, float)) or not untried > 0:
        raise PluginError(f"forecaster {name!r}: untried = {untried!r}; expected a number above 0")
    return name


def _forecasters(registries: Registries, plugin: str) -> Register:
    def register(forecaster: object) -> None:
        registries.forecasters.add(expect_forecaster(forecaster), forecaster, plugin)

    return register


def _named(registry: str) -> Registrar:
    """Return a registrar for plain functions under a name."""

    def registrar(registries: Registries, plugin: str) -> Register:
        def register(name: str, function: Callable[..., object]) -> None:
            origin = Origin(plugin, singular(registry), name)
            getattr(registries, registry).add(name, marked(_callable(function, name), origin), plugin)

        return register

    return registrar


def _callable(value: F, name: str) -> F:
    if not callable(value):
        raise PluginError(f"{name!r} is registered with {value!r}, which cannot be called; pass a function")
    return value


REGISTRARS: dict[str, Registrar] = {
    "register_tasks": _path_or(Task, "tasks"),
    "register_sources": _sources,
    "register_families": _path_or(Family, "families"),
    "register_engines": _engines,
    "register_metrics": _metrics,
    "register_checkers": _checkers,
    "register_samplers": _named("samplers"),
    "register_laws": _laws,
    "register_forecasters": _forecasters,
    "register_executors": _named("executors"),
    "register_reporters": _named("reporters"),
    "register_panels": _named("panels"),
}
