"""The structure: imports go one way, heavy libraries stay in their files, the public surface is what it says."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import harness
from tests.conftest import REPOSITORY

LAYERS = [
    {"errors", "files", "types"},
    {"hookspecs", "templates", "weights"},
    {"registries"},
    {"host", "identity", "documents", "hub", "prompts", "scores", "tables"},
    {"families", "taskfiles", "tasks", "tokens", "samples", "metrics", "records", "samplestore"},
    {"plan", "points", "laws", "objectives", "duals", "solve", "tallies", "sampling", "subsets"},
    {"suite", "columns", "ladders", "starts"},
    {"stepdata"},
    {"steps", "progress"},
    {"procedures"},
    {"checks", "outputs", "reports", "samplingoptions"},
    {"fits", "lawfits"},
    {"fitting.rungs", "fitting.forecast_scores", "fitting.posteriors"},
    {"fitting.family_tables", "fitting.likelihoods", "fitting.verdicts"},
    {"fitting.forecast_models"},
    {"fitting.forecast_laws", "fitting.forecast_results", "fitting.forecast_stack"},
    {"fitting.forecast_runs"},
    {"fitting.forecasts"},
    {"fitting.forecast_files", "fitting.forecast_tables"},
    {"allocations", "back_tests", "crossings", "simulations"},
    {"comparisons", "diffs", "checkerchecks", "enginechecks", "fakes", "forecasterchecks", "listings"},
    {"testing"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = {
    "torch": {
        "plugins/engines/forwards.py",
        "plugins/engines/generation.py",
        "plugins/engines/transformers.py",
        "plugins/nano/models.py",
        "plugins/nano/train.py",
    },
    "transformers": {"plugins/engines/generation.py", "plugins/engines/transformers.py"}
    | {f"plugins/nano/{x}.py" for x in ("models", "text", "train")},
    "datasets": {"harness/hub.py"},
    "tokenizers": {"plugins/nano/text.py"},
    "safetensors": {"plugins/engines/transformers.py"},
    "huggingface_hub": {"harness/families.py"},
    "vllm": {"plugins/engines/vllm_worker.py"},
    "lm_eval": set(),
    "ray": set(),
}
QUICK = {"numpy", "harness", "harness_plugins", "harness_tasks"}  # what a plugin may import at its top level


def imports(path: Path, *, top: bool = False) -> set[str]:
    """Return the modules a file imports; `top` leaves out those inside functions and under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:  # a package's own modules aside
            found.add(node.module)
    return found


def module(path: Path) -> str:
    """Return the dotted name of a file of the core, without `harness.`."""
    return ".".join(path.relative_to(REPOSITORY / "harness").with_suffix("").parts)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def test_every_module_has_its_layer():
    own = {module(path) for path in sources("harness")} - {"__main__"}
    assert {name for name in own if not name.endswith("__init__")} == set(LEVEL)


@pytest.mark.parametrize("path", sources("harness"), ids=module)
def test_a_module_imports_only_from_layers_before_it_or_its_own(path: Path):
    """At module level; what is imported inside a function for type checking or for quick starts is not counted."""
    own = module(path)
    if own not in LEVEL:
        return
    for imported in imports(path, top=True):
        package, _, name = imported.partition(".")
        if package == "harness" and name:
            assert LEVEL[name] <= LEVEL[own], f"{own} imports {name}, which comes after it"


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_heavy_libraries_are_imported_in_their_files_only(library: str):
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for path in sources("harness", "plugins", "tasks")
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert found == HEAVY[library]


def test_plugins_import_only_numpy_and_the_harness_at_the_top():
    standard = __import__("sys").stdlib_module_names
    for path in sources("plugins", "tasks"):
        outside = {module.split(".")[0] for module in imports(path, top=True)} - QUICK - set(standard)
        assert not outside, f"{path.name} imports {outside} at its top level"


def test_the_core_names_its_plugins_only_in_the_list_of_built_ins():
    for path in sources("harness"):
        if path.stem != "host":
            assert not any(module.startswith("harness_plugins") for module in imports(path)), path.name


def test_the_public_surface_is_sorted_and_there():
    assert harness.__all__ == sorted(harness.__all__)
    for name in harness.__all__:
        value = getattr(harness, name)
        assert value is not None
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = harness.evalute


def test_no_public_name_is_hidden_by_a_module():
    """`import harness.fits` must not turn `harness.fits` into something else that is public."""
    modules = {path.stem for path in sources("harness")}
    assert not modules & set(harness.__all__)


@pytest.mark.parametrize("path", sources("harness"), ids=module)
def test_modules_import_by_themselves(path: Path):
    if path.stem != "__main__":
        importlib.import_module(f"harness.{module(path)}".removesuffix(".__init__"))


def test_the_repository_speaks_of_itself_alone():
    """No absolute paths of the machine it was written on, and no unfinished business."""
    import re

    stray = re.compile(r"(?<![\w.])/(home|root|Users)/\w|TO" + r"DO|FIX" + r"ME")
    for path in [
        *sources("harness", "plugins", "tasks", "tests"),
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("*/*.md"),
    ]:
        found = stray.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path}: {found}"
