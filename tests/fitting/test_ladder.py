"""A table goes through a fit in one direction: prepared, split, read, fitted, scored, and searched for warnings."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from harness import fit
from harness.fitting.ladder import Ladder
from harness.host import PluginHost
from harness.store.points import PointStore

PREFIX = "harness.fitting."
TABLES = (pd.DataFrame, pd.Series, Ladder)


def modules_of(function) -> list[str]:
    """Return the modules of fitting whose functions get a table or a ladder during a call, in order, each stay once.

    Constructors that dataclasses generate, which only store their arguments, do not count.
    """
    way: list[str] = []

    def enter(frame, event, arg):
        module, code = frame.f_globals.get("__name__", ""), frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        is_written = code.co_filename != "<string>"
        is_new = event == "call" and is_written and module.startswith(PREFIX) and way[-1:] != [module]
        if is_new and any(isinstance(frame.f_locals.get(name), TABLES) for name in names):
            way.append(module)

    before = sys.getprofile()
    sys.setprofile(enter)
    try:
        function()
    finally:
        sys.setprofile(before)
    return way


def assert_one_direction(way: list[str]) -> None:
    """At most twelve stays in modules, and two returns to modules visited before."""
    assert len(way) <= 12, " -> ".join(way)
    assert len(way) - len(set(way)) <= 2, " -> ".join(way)


ASKED = {"hold_out": "largest", "bootstrap": 20, "starts": 4}


def test_a_table_is_read_once_and_early(host: PluginHost):
    """From the table to its LawFit."""
    flops = np.geomspace(1e18, 1e22, 12)
    params = np.sqrt(flops / 120)
    points = pd.DataFrame({"family": "a", "size": params.astype(str), "params": params, "flops": flops})
    points["loss"] = 2 + (flops / 1e18) ** -0.3 + 0.001 * np.random.default_rng(0).normal(size=12)
    assert_one_direction(modules_of(lambda: fit(points, "power", value="loss", registries=host, **ASKED)))


def test_points_of_a_store_are_read_once_and_early(nano_store: PointStore, host: PluginHost):
    """From long points, which are pivoted, to the LawFit with resampled documents."""
    points = nano_store.points("nano_birthplace", "aster", metrics=["acc", "logp_gold"])
    asked = {**ASKED, "value": "acc", "store": nano_store, "registries": host}
    assert_one_direction(modules_of(lambda: fit(points, "sigmoid", **asked)))
