"""A new environment with the wheels of this repository, for tests of the installed packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def install_wheels(folder: Path) -> Path:
    """Build both wheels and return the interpreter of a new environment with them; libraries alone are borrowed."""
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "results", "__pycache__")
    source = shutil.copytree(REPOSITORY, folder / "source", ignore=ignored)
    for built in (source / "plugins" / "nano", source):
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(built)]
        subprocess.run(command, check=True, capture_output=True)
    wheels = sorted(map(str, folder.glob("*.whl")))
    assert len(wheels) == 2
    venv.create(folder / "venv", with_pip=True)
    interpreter = folder / "venv" / "bin" / "python"
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *wheels]
    subprocess.run(install, check=True, capture_output=True)
    site = subprocess.run(
        [str(interpreter), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (Path(site) / "borrowed.pth").write_text("\n".join(libraries) + "\n")  # .pth files there are not read
    return interpreter


def run(python: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [str(python.parent / arguments[0]), *arguments[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
