"""What this machine has and what would run on it: versions, packages of extras, GPU, engines, plugins, disk."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness.files import cache_folder
from harness.host import PluginHost, distribution
from harness.host.origins import PLUGIN_ERRORS, describe
from harness.tables import Table

EXTRAS = {
    "transformers": ("torch", "transformers", "safetensors", "tokenizers"),
    "hub": ("datasets",),
    "vllm": ("vllm",),
    "lm-eval": ("lm_eval",),
    "ray": ("ray",),
    "report": ("altair", "jinja2", "vl_convert"),
}
DISTRIBUTIONS = {"lm_eval": "lm-eval", "vl_convert": "vl-convert-python"}
SLOW = 0.3  # seconds to load a plugin
LITTLE = 2e9  # bytes of free disk
GPU = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]

Line = tuple[str, str, str]


def doctor_table(host: PluginHost, folder: str | Path = ".") -> Table:
    """Return what was found, one row per item: its state, and what to do where something is missing.

    It opens no engine and imports none of the heavy packages. `folder` is where a store would be written.
    """
    rows = [*_system(), *_extras(), *_gpu(), *_engines(host), *_plugins(host), *_disk(Path(folder))]
    wrong = sum(advice.startswith("!") for *_, advice in rows)
    rows = [(item, state, advice.removeprefix("!")) for item, state, advice in rows]
    note = f"{wrong} of {len(rows)} items need attention." if wrong else "Nothing needs attention."
    return Table("doctor", "This machine", ("item", "found", "what to do"), tuple(rows), (note,))


def _system() -> Iterator[Line]:
    yield "harness", f"{distribution.version()} ({distribution.name()})", ""
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "CPU cores", str(cores), ""
    cache = cache_folder()
    near = next(path for path in (cache, *cache.parents) if path.exists())
    is_writable = os.access(near, os.W_OK)
    yield "cache", str(cache), "" if is_writable else "!it cannot be written; set XDG_CACHE_HOME"


def _extras() -> Iterator[Line]:
    """Yield each extra with the versions of its packages, read from their metadata."""
    for extra, modules in EXTRAS.items():
        absent = distribution.missing(modules)
        versions = [f"{name} {_version(name)}" for name in modules if name not in absent]
        advice = distribution.how_to_install(extra) if absent else ""
        yield f"extra {extra}", ", ".join(versions) or "not installed", advice


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _gpu() -> Iterator[Line]:
    if shutil.which(GPU[0]) is None:
        yield "GPU", "none found (no nvidia-smi)", ""
        return
    try:
        listed = subprocess.run(GPU, capture_output=True, text=True, timeout=20, check=True).stdout  # noqa: S603  # a constant
    except (OSError, subprocess.SubprocessError) as error:
        yield "GPU", f"nvidia-smi fails: {error}", "!check the driver"
        return
    for number, line in enumerate(listed.strip().splitlines()):
        yield f"GPU {number}", line.strip(), ""


def _engines(host: PluginHost) -> Iterator[Line]:
    """Yield each engine, and whether it would run and be the default here."""
    usable = []
    for name in host.engines:
        engine = host.engines[name]
        absent = distribution.missing(engine.modules)
        if absent:
            how = engine.install() if engine.install else f"pip install {' '.join(absent)}"
            yield f"engine {name}", f"{', '.join(absent)} missing", how
            continue
        try:
            preferred = engine.preferred()
        except PLUGIN_ERRORS as error:  # as anywhere else, the code of a plugin may fail in any way
            yield f"engine {name}", describe(error), "!its function preferred() fails"
            continue
        usable.append(name)
        yield f"engine {name}", "default here" if preferred else "installed", ""
    if not usable:
        yield "engines", "none can run", f"!{distribution.how_to_install('transformers')}"


def _plugins(host: PluginHost) -> Iterator[Line]:
    infos = host.plugins()
    for info in infos:
        if info.error:
            yield f"plugin {info.name}", info.error, f"!correct it, or disable it with -p no:{info.name}"
        elif info.seconds > SLOW:
            yield f"plugin {info.name}", f"loads in {info.seconds:.1f} s", "!import heavy libraries inside functions"
    loaded = [info.name for info in infos if not info.error]
    others = [name for name in loaded if not host.ships(name)]
    yield "plugins", f"{len(loaded)} loaded, {len(others)} of them from elsewhere", ", ".join(others)


def _disk(folder: Path) -> Iterator[Line]:
    near = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(near).free
    advice = "" if free > LITTLE else "!a store of a large sweep may need more"
    yield "disk", f"{free / 1e9:.1f} GB free at {folder}", advice
