"""The architecture: which package may import which, where heavy libraries may be imported, what plugins may import.

All imports count: those inside functions and those under TYPE_CHECKING as well.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import harness
from tests.conftest import REPOSITORY

CONTRACTS = {"charts", "errors", "files", "host", "tables", "types"}
FACADES = {
    "engines",
    "executors",
    "laws",
    "points",
    "testing",
}  # for plugins: nothing inside imports them
BELOW_STORE = {"contracts", "tasks", "checkpoints", "metrics"}
BELOW_REPORTS = BELOW_STORE | {"store", "evaluation", "fitting"}
ALLOWED = {
    "contracts": {"contracts"},
    "tasks": {"contracts"},
    "checkpoints": {"contracts"},
    "metrics": {"contracts"},
    "store": BELOW_STORE,
    "evaluation": BELOW_STORE | {"store"},
    "fitting": {
        "contracts",
        "metrics",
        "harness.checkpoints.flops",
        "harness.store.points",
        "harness.store.point_files",
    },
    "reports": BELOW_REPORTS,
    "testing": BELOW_REPORTS,
    "cli": BELOW_REPORTS | {"reports", "testing"},
    "facades": BELOW_REPORTS | {"reports", "testing", "cli", "facades"},
}
HEAVY = {  # library: the only places that import it
    "torch": {"plugins/engines/", "plugins/nano/"},
    "transformers": {"plugins/engines/", "plugins/nano/"},
    "vllm": {"plugins/engines/"},
    "peft": {"plugins/engines/"},
    "safetensors": {"plugins/engines/", "plugins/nano/"},
    "tokenizers": {"plugins/nano/"},
    "datasets": {"harness/tasks/hub.py"},
    "huggingface_hub": {"harness/checkpoints/", "harness/tasks/hub.py"},
    "lm_eval": {"plugins/sources/"},
    "ray": {"plugins/executors/"},
    "rouge_score": {"plugins/metrics/"},
    "sacrebleu": {"plugins/metrics/"},
    "jinja2": {"harness/tasks/jinja_child.py", "harness/reports/page/"},
    "altair": {"harness/charts/drawing.py"},
    "vl_convert": {"harness/charts/drawing.py"},
}
QUICK = {"numpy", "harness", "harness_plugins", "harness_tasks"}  # what a plugin may import at its top level
PUBLIC = {"harness", *(f"harness.{name}" for name in FACADES | {"charts", "errors", "files", "tables", "types"})}


@cache
def imports(source: str, *, top: bool = False) -> tuple[str, ...]:
    """Return the modules that a source imports; `top` leaves out those inside functions and under TYPE_CHECKING."""
    return tuple(imported(source, top=top))


def imported(source: str, *, top: bool) -> Iterator[str]:
    tree = ast.parse(source)
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


def sources(*folders: str) -> list[Path]:
    """Return the modules in some folders; plugins/example is a distribution of its own, as a stranger's."""
    paths = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    assert {path.relative_to(REPOSITORY).parts[0] for path in paths} == set(folders)
    built = REPOSITORY / "plugins" / "nano" / "build"
    return sorted(path for path in paths if not {REPOSITORY / "plugins" / "example", built} & set(path.parents))


def module_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: dict[str, Path] = {module_of(path): path for path in sources("harness")}


def package_of(module: str) -> str:
    """Return the package of a module of harness: one of ALLOWED."""
    _, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    if name in CONTRACTS:
        return "contracts"
    return name if name in ALLOWED and "." in rest else "facades" if name in FACADES | {"", "__main__"} else name


@cache
def graph() -> dict[str, set[str]]:
    """Return the modules of harness that each module of harness imports."""
    return {name: {m for m in imports(path.read_text("utf-8")) if m in MODULES} for name, path in MODULES.items()}


def against_the_order(module: str, imported: str) -> bool:
    """Say whether an import goes against the order of packages."""
    package, other = package_of(module), package_of(imported)
    return package != other and not {other, imported} & ALLOWED[package]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_package_may(module: str):
    wrong = [other for other in graph()[module] if against_the_order(module, other)]
    assert not wrong, f"{module} ({package_of(module)}) imports {', '.join(wrong)}; see ALLOWED"


WRONG = {
    "harness.fitting.formula": "from harness.evaluation.suite import Suite",
    "harness.evaluation.plan": "def late():\n    from harness.fitting.laws import Law",
    "harness.store.cells": "if TYPE_CHECKING:\n    from harness.evaluation import suite",
    "harness.tasks.loading": "import harness.store.cells",
    "harness.fitting.fit": "from harness.checkpoints.families import select",
    "harness.metrics.scores": "from harness.laws import Law",
    "harness.errors": "def late():\n    import harness.tasks.loading",
    "harness.reports.compare": "from harness.cli.commands import main",
}


@pytest.mark.parametrize(("module", "line"), WRONG.items(), ids=list(WRONG))
def test_a_wrong_import_is_found_wherever_it_hides(module: str, line: str):
    source = f"{MODULES[module].read_text('utf-8')}\n{line}\n"
    assert any(against_the_order(module, other) for other in imports(source) if other in MODULES)


def test_no_modules_import_each_other_in_a_circle():
    circles = {name: others - {name} for name, others in graph().items()}
    try:
        TopologicalSorter(circles).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' -> '.join(error.args[1])}")


def packages() -> Mapping[str, set[str]]:
    """Return the graph of packages; contracts and facades are a node each, by their own names."""

    def node(module: str) -> str:
        package = package_of(module)
        return module.split(".")[1] if package in {"contracts", "facades"} and "." in module else package

    arrows: dict[str, set[str]] = {}
    for module, others in graph().items():
        if module != "harness":
            arrows.setdefault(node(module), set()).update(node(o) for o in others if o != "harness")
    return {name: others - {name} for name, others in arrows.items()}


def test_the_graph_of_packages_stays_small_enough_to_draw():
    arrows = packages()
    levels: dict[str, int] = {}
    for name in TopologicalSorter(arrows).static_order():
        levels[name] = 1 + max((levels[other] for other in arrows.get(name, ())), default=0)
    assert len(levels) <= 20
    assert sum(map(len, arrows.values())) <= 92
    assert max(levels.values()) <= 9


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_heavy_libraries_are_imported_in_their_places_only(library: str):
    for path in sources("harness", "plugins", "tasks"):
        name = path.relative_to(REPOSITORY).as_posix()
        if any(module.split(".")[0] == library for module in imports(path.read_text("utf-8"))):
            assert name.startswith(tuple(HEAVY[library])), f"{name} imports {library}"


def test_plugins_import_only_numpy_and_the_harness_at_the_top():
    for path in sources("plugins", "tasks"):
        outside = {m.split(".")[0] for m in imports(path.read_text("utf-8"), top=True)} - QUICK
        assert not outside - set(sys.stdlib_module_names), f"{path.name} imports {outside} at its top level"


def test_plugins_import_public_modules_only():
    for path in sources("plugins", "tasks"):
        of_harness = {m for m in imports(path.read_text("utf-8")) if m.partition(".")[0] == "harness"}
        assert of_harness <= PUBLIC, f"{path.relative_to(REPOSITORY)} imports {', '.join(sorted(of_harness - PUBLIC))}"


def test_the_core_names_its_plugins_only_in_the_list_of_built_ins():
    for path in sources("harness"):
        if path.stem != "candidates":
            assert not any(m.startswith("harness_plugins") for m in imports(path.read_text("utf-8"))), path.name


def test_the_public_surface_is_sorted_and_complete():
    assert harness.__all__ == sorted(set(harness.__all__))
    assert set(harness.__all__) <= set(dir(harness))
    for name in harness.__all__:
        value = getattr(harness, name)
        assert value is not None
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = harness.evalute


def test_every_public_name_is_written_in_one_line_of_the_stub():
    stub = (REPOSITORY / "harness" / "__init__.pyi").read_text(encoding="utf-8")
    listed = re.findall(r"^from (harness\.[\w.]+) import (\w+) as (\w+)$", stub, re.MULTILINE)
    assert [name for _, name, _ in listed] == [name for _, _, name in listed]
    assert sorted(name for _, name, _ in listed) == harness.__all__
    assert sum(line.startswith("from ") for line in stub.splitlines()) == len(listed)
    assert not set(harness.__all__) & set(re.findall(r"\w+", Path(harness.__file__).read_text("utf-8").split('"""')[2]))


@pytest.mark.parametrize("name", ["back_test", "compare", "diff", "evaluate", "fit", "fit_families", "forecast"])
def test_a_misspelt_keyword_is_an_error_of_the_function_that_was_called(name: str):
    function = getattr(harness, name)
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'seeed'"):
        function(seeed=1)


def test_public_functions_spell_their_keyword_arguments():
    """`**features` of predict are the features of a law, which only the law knows."""
    for name in harness.__all__:
        value = getattr(harness, name)
        methods = inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else [(name, value)]
        for method, function in methods:
            if not inspect.isfunction(function) or method.startswith("_"):
                continue
            kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds or method == "predict", f"{name}: {method}"


def test_no_public_name_is_hidden_by_a_module():
    """`import harness.fits` must not turn `harness.fits` into something else that is public."""
    assert not {name.split(".")[1] for name in MODULES if "." in name} & set(harness.__all__)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"harness.__main__"}))
def test_modules_import_by_themselves(module: str):
    importlib.import_module(module)


def test_the_repository_speaks_of_itself_alone():
    """No absolute paths of the machine it was written on, and no unfinished business."""
    stray = re.compile(r"(?<![\w.])/(home|root|Users)/\w|TO" + r"DO|FIX" + r"ME")
    documents = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*/*.md")]
    for path in [*sources("harness", "plugins", "tasks", "tests"), *documents]:
        match = stray.search(path.read_text(encoding="utf-8"))
        assert not match, f"{path}: {match}"
