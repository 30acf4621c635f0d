"""How text is generated: the sampler with its options, the checkers, and overrides of the tasks' sampling options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypedDict

from harness.errors import PluginError, UsageError
from harness.host.origins import Origin
from harness.host.registries import Registries, find_checker
from harness.types import Checker, Generation, Json, Sampler, Task
from harness.types.json import JsonObject

NOBODY = Origin("-", "sampler", "-")


class SamplingOptions(TypedDict, total=False):
    """The argument `sampling` of `harness.evaluate`: how text is generated; documented at `make_sampling`."""

    sampler: str
    options: JsonObject
    temperature: float | None
    top_p: float | None
    seed: int
    keep_texts: bool
    allow_code_execution: bool


@dataclass(frozen=True)
class Sampling:
    """How a suite generates text: a sampler with its options, and overrides of the tasks' sampling options."""

    name: str
    sampler: Sampler
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0
    keep_texts: bool = True
    checkers: Mapping[str, Checker] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # of checkers, on the sandbox
    origin: Origin = NOBODY  # of the sampler

    def of(self, task: Task) -> Generation:
        """Return how a task generates text in this suite; raise UsageError for equal samples, or too few of them."""
        if task.generation is None:
            raise UsageError(f"task {task.name} generates no text")
        defaults = task.generation
        temperature = defaults.temperature if self.temperature is None else self.temperature
        generation = replace(
            defaults, temperature=temperature, top_p=defaults.top_p if self.top_p is None else self.top_p
        )
        if self.sampler.at_most > 1 and generation.temperature == 0:
            raise UsageError(
                f"task {task.name}: all samples of a document are equal at temperature 0; pass --temperature, such as "
                "1, or draw a single sample"
            )
        wanted = int((task.source or {}).get("samples", 1)) if generation.temperature > 0 else 1
        if self.sampler.at_most < wanted:
            raise UsageError(
                f"task {task.name}: its metrics need {wanted} samples per document, and {self.sampler.at_most} would "
                f"be drawn; pass --n {wanted}"
            )
        return generation

    def settings(self, task: Task) -> dict[str, Json]:
        """Return the sampling settings in a cell's identity."""
        generation, checker = self.of(task), self.checkers[task.name]
        return {
            "sampler": self.name,
            **vars(self.sampler),
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "seed": self.seed,
            "checker": f"{checker.name} {checker.version}",
        }


def make_sampling(
    tasks: list[Task],
    registries: Registries,
    *,
    sampler: str = "n",
    options: JsonObject | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int = 0,
    keep_texts: bool = True,
    allow_code_execution: bool = False,
) -> Sampling:
    """Return how text is generated for some tasks.

    Raises UsageError for unknown options, an unknown checker, or one that runs code without permission.
    """
    make, options = registries.samplers[sampler], dict(options or {})
    try:
        made = make(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"sampler {sampler!r} cannot be made with {options}: {error}; see harness ls samplers"
        ) from error
    if not isinstance(made, Sampler):
        raise PluginError(f"sampler {sampler!r} returned {made!r}; expected a harness.Sampler: more() and at_most")
    checkers = {task.name: find_checker(task.generation.checker, registries) for task in tasks if task.generation}
    for name, checker in checkers.items():
        if checker.executes_code and not allow_code_execution:
            raise UsageError(
                f"task {name} runs programs written by a model (checker {checker.name!r}); pass --allow-code-execution "
                "to permit it on this machine"
            )
    prepare = {checker.prepare for checker in checkers.values() if checker.prepare is not None}
    notes = sorted({note for verify in prepare for note in verify()})
    drawing = Sampling(
        sampler,
        made,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        keep_texts=keep_texts,
        checkers=checkers,
        notes=tuple(notes),
        origin=registries.samplers.origin(sampler),
    )
    for task in tasks:
        if task.generation:
            drawing.of(task)
    return drawing
