"""A page in a real browser: Chromium without a network, what it says, and what axe-core finds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AXE = REPOSITORY / ".venv" / "axe-core" / "axe.min.js"  # .ci/run puts it there
SERIOUS = {"serious", "critical"}


def browser_path() -> str:
    """Return the path of a Chromium; skip where there is none."""
    path_of_browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    return path_of_browser or pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")


@contextmanager
def opened(page_file: Path, *, width: int = 1280, dark: bool = False) -> Iterator[tuple[Any, list[str]]]:
    """Open a page from disk; yield it drawn, with everything that went wrong or was requested."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    faults: list[str] = []
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        page = context.new_page()
        page.on("console", lambda said: faults.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda request: faults.append(request.url) if is_foreign(request.url, page_file) else None)
        page.goto(page_file.as_uri())
        page.wait_for_selector("body[data-ready=yes]", timeout=120_000)
        try:
            yield page, faults
        finally:
            browser.close()


def is_foreign(url: str, page_file: Path) -> bool:
    """Say whether a request is for something that the page does not hold."""
    return url != page_file.as_uri() and not url.startswith(("data:", "blob:"))


def accessibility(page: Any) -> list[str]:
    """Return the serious findings of axe-core; skip where it is not there."""
    path = Path(os.environ.get("HARNESS_AXE", AXE))
    if not path.exists():
        pytest.skip(f"{path} is absent; .ci/run installs axe-core from npm")
    page.evaluate(path.read_text(encoding="utf-8"))  # a script element would break the policy of the page
    violations = json.loads(page.evaluate("axe.run().then((found) => JSON.stringify(found.violations))"))
    return [
        f"{violation['id']}: {violation['help']} ({node['html'][:120]})"
        for violation in violations
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]


def controls(page: Any) -> list[str]:
    """Set every control to each of its values (three at most), and return what was set."""
    done = []
    for name in page.eval_on_selector_all("#controls select", "all => all.map((one) => one.name)"):
        values = page.eval_on_selector_all(f"#control-{name} option", "all => all.map((one) => one.value)")
        for value in [*values[-2:], values[0]]:
            page.select_option(f"#control-{name}", value)
            page.wait_for_timeout(100)
            done.append(f"{name}={value}")
    for _ in range(2):
        page.click("#control-log")
        page.wait_for_timeout(100)
    return [*done, "log"]


def marks(page: Any) -> dict[str, int]:
    """Return how many marks each figure shows."""
    return dict(
        page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.figure')].map((f) => "
            "[f.id.replace('figure-', ''), f.querySelectorAll('[class*=role-mark] path').length]))"
        )
    )
