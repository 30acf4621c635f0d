"""Small working plugins that `harness new` writes: files/ holds one template per file (string.Template).

A package has pyproject.toml with the entry point, a module, a test with the conformance check, and a README.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from harness.cli.skeletons.ladders import HUB_FAMILY, family_settings
from harness.errors import UsageError, suggest
from harness.host import distribution

FILES = Path(__file__).with_name("files")
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Kind:
    """A kind of plugin: the one-line description, how it is used, and data files beside its module."""

    about: str
    use: str
    data: tuple[str, ...] = ()


KINDS = {
    "law": Kind("A law of accuracy and compute.", "harness fit STORE --law $name --task TASK --hold-out largest"),
    "metric": Kind("A metric of multiple-choice tasks.", "harness compare STORE --metric TASK=$name"),
    "task": Kind(
        "A task with its documents.", "harness eval FAMILY --tasks $name -o STORE", ("task.yaml", "docs.jsonl")
    ),
    "source": Kind("Tasks that are made on demand.", "harness eval FAMILY --tasks '$name:*' -o STORE"),
    "family": Kind("A family of checkpoints.", "harness eval $name --tasks TASK -o STORE", ("family.toml",)),
    "engine": Kind("An engine that scores.", "harness eval FAMILY --tasks TASK --engine $name -o STORE"),
    "checker": Kind("A checker of generated texts.", "In task.yaml: kind: generate and checker: $name"),
    "sampler": Kind("A sampler of texts.", "harness eval FAMILY --tasks TASK --sampler $name --temperature 1 -o STORE"),
    "forecaster": Kind("A model for harness forecast.", "harness forecast STORE --params 7e9 --tokens 1e12"),
    "reporter": Kind("A format of tables.", "harness compare STORE --format $name"),
    "figure": Kind("A figure of the report.", "harness report STORE -o report.html"),
    "command": Kind("A command.", "harness $dashed STORE"),
    "plugin": Kind(
        "A law, a metric, a task, an engine, a command and a figure.",
        "harness compare STORE --metric TASK=$name",
        ("task.yaml", "docs.jsonl"),
    ),
}
PARTS = ("law", "metric", "task", "engine", "command", "figure")  # of the kind `plugin`


def write_skeleton(
    kind: str, name: str, folder: str | Path = ".", *, source: str = "", tokens_per_step: int | None = None
) -> list[Path]:
    """Write a small working plugin to FOLDER/NAME and return its files.

    :param kind: one of KINDS.
    :param name: the name of the package and of what it registers: lower-case letters, digits and _.
    :param source: for a family, a pattern of existing folders such as `checkpoints/{size}/step-{step}`, from which
        sizes and steps are read; without it, the family is an example on the hub.
    :param tokens_per_step: for a family, training tokens per step.

    Raises UsageError for an unknown kind, a name that Python cannot import or that is taken, and an existing folder.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no kind {kind!r} of plugin; {suggest(kind, KINDS)}")
    if source and kind != "family":
        raise UsageError(f"--source describes checkpoints of a family, not a {kind}")
    place = Path(folder) / name
    _check_name(kind, name, place)
    settings = family_settings(source, tokens_per_step) if source else HUB_FAMILY
    values = {**_values(kind, name), **settings, "package": name}
    written = []
    for path, template, module in _files(kind, name):
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_filled(template, {**values, "module": module}), encoding="utf-8")
        written.append(target)
    return written


def rendered(kind: str, name: str, template: str) -> str:
    """Return one file of a kind as `harness new` writes it; for the documentation."""
    return _filled(template, {**_values(kind, name), **HUB_FAMILY, "module": name, "package": name})


def _filled(template: str, values: Mapping[str, str]) -> str:
    return Template((FILES / f"{template}.template").read_text(encoding="utf-8")).substitute(values)


def _check_name(kind: str, name: str, place: Path) -> None:
    """Raise UsageError for a name that the modules of a kind cannot have."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a package: expected lower-case letters, digits and _, such as {_similar(name)}"
        )
    if iskeyword(name):
        raise UsageError(f"{name!r} is a keyword of Python; choose another name, such as my_{name}")
    if {name, _class_name(name)} & _names_of(kind):
        raise UsageError(
            f"the template of kind {kind} uses the name {name!r} itself; choose another name, such as my_{name}"
        )
    if place.exists():
        raise UsageError(f"{place} exists; choose another name, or another folder with -o")
    if find_spec(name) is not None:
        raise UsageError(f"Python already has a module {name!r}; choose another name")


def _similar(name: str) -> str:
    """Return a valid name that resembles a name, or an example of one."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    similar = re.sub("[^a-z0-9]+", "_", ascii_name).strip("_")
    return similar if NAME.fullmatch(similar) and not iskeyword(similar) else "my_law"


def _names_of(kind: str) -> set[str]:
    """Return the functions, classes and arguments that the modules of a kind define, whatever the plugin's name."""
    other = "another_name"
    modules = [rendered(kind, other, f"{part}.py") for part in (PARTS if kind == "plugin" else (kind,))]
    nodes = [node for module in modules for node in ast.walk(ast.parse(module))]
    names = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return (names | {node.arg for node in nodes if isinstance(node, ast.arg)}) - {other, _class_name(other)}


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _values(kind: str, name: str) -> dict[str, str]:
    words = name.split("_")
    values = {
        "name": name,
        "about": KINDS[kind].about,
        "dashed": "-".join(word for word in words if word),
        "Class": _class_name(name),
        "distribution": distribution.name() if distribution.name() != "." else "scaling-harness",
        "contents": _contents(kind, name),
    }
    use = Template(KINDS[kind].use).substitute(values)
    return values | {"use": f"    {use}" if use.startswith("harness") else use}


def is_package(kind: str) -> bool:
    """Tell whether a kind is written as a package, because it has data or several modules."""
    return bool(KINDS[kind].data)


def _contents(kind: str, name: str) -> str:
    if not is_package(kind):
        return f'py-modules = ["{name}"]'
    return f'packages = ["{name}"]\n\n[tool.setuptools.package-data]\n{name} = ["*.jsonl", "*.toml", "*.yaml"]'


def _files(kind: str, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield (path, template, module under test) of each file of a kind."""
    yield "pyproject.toml", "pyproject.toml", name
    yield "README.md", "README.md", name
    module = f"{name}/__init__.py" if is_package(kind) else f"{name}.py"
    yield module, f"{kind}.py", name
    for part in PARTS if kind == "plugin" else ():
        yield f"{name}/{part}.py", f"{part}.py", name
        yield f"test_{name}_{part}.py", f"test_{part}.py", f"{name}.{part}"
    if kind != "plugin":
        yield f"test_{name}.py", f"test_{kind}.py", name
    for data in KINDS[kind].data:
        yield f"{name}/{data.replace('family.', f'{name}.')}", data, name
