"""Laws recovered from points that were made with them: exactly without noise, and with a given draw of noise."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.fitting.laws import curve
from harness.fitting.result import LawFit
from harness.types import Floats
from harness_plugins.laws.recipes import areas
from tests.reproductions.targets import Numbers, Target, host, parameters, quick


def made(law: str, truth: Numbers, x: dict[str, Floats]) -> pd.DataFrame:
    """Return points of a law, column y."""
    known = host().laws[law]
    values = np.array([[truth[name] for name in known.parameters]])
    return pd.DataFrame({**x, "y": curve(known, values, x)[0]})


def noise(n: int) -> Floats:
    """Return the draw with which the expected numbers were found."""
    return np.random.default_rng(0).standard_normal(n)


def square(first: Floats, second: Floats) -> dict[str, Floats]:
    """Return params and tokens of a grid of runs."""
    params, tokens = np.meshgrid(first, second)
    return {"params": params.ravel(), "tokens": tokens.ravel()}


def fitted(points: pd.DataFrame, law: str, sd: float = 0.0) -> LawFit:
    """Fit by least squares of ln y, after noise on it."""
    points = points.assign(y=points["y"] * np.exp(sd * noise(len(points))))
    return quick(points, law, "y", objective="log_least_squares")


def kaplan() -> Numbers:
    """Kaplan's form."""
    truth = {"log_N_c": np.log(8.8e13), "alpha_N": 0.076, "log_D_c": np.log(5.4e13), "alpha_D": 0.095}
    points = made("kaplan", truth, square(np.logspace(6, 9, 7), np.logspace(8, 11, 7)))
    noisy = parameters(fitted(points, "kaplan", 0.002))
    return parameters(fitted(points, "kaplan")) | {f"{name}, noisy": noisy[name] for name in ("alpha_N", "alpha_D")}


def chinchilla() -> Numbers:
    """Chinchilla's form."""
    truth = {"E": 1.82, "a": np.log(482), "alpha": 0.348, "b": np.log(2085), "beta": 0.366}
    points = made("chinchilla", truth, square(np.logspace(7, 10, 8), np.logspace(9, 11.5, 8)))
    noisy = parameters(fitted(points, "chinchilla", 0.005))
    return parameters(fitted(points, "chinchilla")) | {f"{k}, noisy": noisy[k] for k in ("alpha", "beta", "E")}


def farseer() -> Numbers:
    """Farseer's form, judged by a run far beyond, and Chinchilla's law on the same points."""
    truth = {"a3": 0.3, "gamma": -0.25, "b3": 0.55, "a2": 0.5, "beta": -0.2, "b2": -0.3, "a1": -0.15, "alpha": 0.2}
    grid = square(1e9 * np.logspace(-1, 0.6, 9), 1e9 * np.logspace(0, 2.6, 9))
    points = made("farseer", truth | {"b1": -0.9}, grid)
    far = {"params": [16e9], "tokens": [800e9]}
    (right,) = made("farseer", truth | {"b1": -0.9}, {k: np.array(v) for k, v in far.items()})["y"]
    other = fitted(points, "chinchilla")
    laws = {"exact": fitted(points, "farseer"), "noisy": fitted(points, "farseer", 0.001), "chinchilla": other}
    misses = {name: 100 * abs(law.predict(**far)["value"].iloc[0] / right - 1) for name, law in laws.items()}
    rms = float(np.sqrt(2 * other.steps[0].cost / len(points)))
    return {"true loss": right, **{f"{k}: error, %": v for k, v in misses.items()}, "chinchilla: rms": rms}


def schedules() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a cosine schedule and one that is constant and then falls, 20,000 steps each, with their areas."""
    step = np.arange(20000)
    warm = 3e-4 * np.minimum((step + 1) / 500, 1.0)
    along = np.clip((step - 499) / (19999 - 499), 0, 1)
    cosine = np.where(step < 500, warm, 3e-5 + (3e-4 - 3e-5) * 0.5 * (1 + np.cos(np.pi * along)))
    late = np.clip((step - 15999) / (19999 - 15999), 0, 1)
    constant = np.where(step < 500, warm, 3e-4 + (3e-5 - 3e-4) * late)
    first, second = (areas(pd.DataFrame({"step": step, "learning_rate": rate})) for rate in (cosine, constant))
    return first, second


def lr_annealing() -> Numbers:
    """A curve under a cosine schedule tells the end of one under another schedule."""
    first, second = schedules()
    truth = {"L0": 2.6, "A": 0.4, "alpha": 0.5, "C": 0.3}
    ends = {
        f"{s} at the end, {n}": float(t[s].iloc[-1])
        for n, t in (("cosine", first), ("test", second))
        for s in ("s1", "s2")
    }
    rows = first.iloc[1000::50]
    points = made("lr_annealing", truth, {name: rows[name].to_numpy() for name in ("s1", "s2")})
    last = second.iloc[[-1]]
    (right,) = made("lr_annealing", truth, {name: last[name].to_numpy() for name in ("s1", "s2")})["y"]
    exact = quick(points, "lr_annealing", "y")
    noisy = quick(points.assign(y=points["y"] + 0.005 * noise(len(points))), "lr_annealing", "y")
    misses = [abs(float(law.predict(last)["value"].iloc[0]) - right) for law in (exact, noisy)]
    return {**ends, "true loss": right, "exact: error": misses[0], "noisy: error": misses[1]}


def log_law() -> Numbers:
    """Isik's form, judged by a run beyond."""
    points = made("log_law", {"log_A": -2.0, "alpha": 0.2, "beta": 3.0}, {"tokens": np.logspace(7, 10, 12)})
    exact, noisy = (
        fitted(points, "log_law"),
        quick(points.assign(y=points["y"] * (1 + 0.01 * noise(12))), "log_law", "y"),
    )
    far = {"tokens": [1e11]}
    return parameters(exact) | {
        "at 1e11": float(exact.predict(**far)["value"].iloc[0]),
        "at 1e11, noisy": float(noisy.predict(**far)["value"].iloc[0]),
    }


def generative() -> Numbers:
    """A rate in compute."""
    truth = {"E0": 0.8, "log_C0": np.log(2e4), "alpha": 0.22}
    return parameters(quick(made("generative", truth, {"flops": np.logspace(18, 22, 9)}), "generative", "y"))


def broken() -> Numbers:
    """A break with points before and after it, and predictions beyond them."""
    truth = {"a": 0.3, "log_b": np.log(2), "c0": 0.05, "c1": 0.6, "log_d1": np.log(1e4), "log_f1": np.log(0.25)}
    points = made("broken_power", truth, {"flops": np.logspace(2, 7, 26)}).rename(columns={"flops": "x"})
    found = quick(points, "broken_power", "y", hold_out="x > 3e5", law_options={"feature": "x"})
    misses = [np.log(row["predicted"] / row["measured"]) for row in found.hold_out]
    return parameters(found) | {"beyond, rms of ln y": float(np.sqrt(np.mean(np.square(misses))))}


MADE = "points made with the law"
TARGETS = [
    Target(
        "S1",
        MADE,
        "kaplan, 7 x 7 runs, sd 0.002",
        kaplan,
        {
            "alpha_N": (0.076, 1e-5), "alpha_D": (0.095, 1e-5), "log_N_c": (32.108, 1e-3), "log_D_c": (31.620, 1e-3),
            "alpha_N, noisy": (0.07566, 2e-4), "alpha_D, noisy": (0.09563, 2e-4),
        },
    ),
    Target(
        "S2",
        MADE,
        "chinchilla, 8 x 8 runs, sd 0.005",
        chinchilla,
        {
            "A": (482, 0.48), "B": (2085, 2.1), "E": (1.82, 1.8e-3), "alpha": (0.348, 3e-4), "beta": (0.366, 3e-4),
            "alpha, noisy": (0.3533, 5e-4), "beta, noisy": (0.3699, 5e-4), "E, noisy": (1.8356, 5e-4),
        },
    ),
    Target(
        "S3",
        MADE,
        "farseer, 9 x 9 runs, sd 0.001; a run of 16B on 8e11 tokens predicted",
        farseer,
        {
            "true loss": (2.13549, 1e-5), "exact: error, %": (0, 0.01), "noisy: error, %": (0, 0.5),
            "chinchilla: error, %": (3.16, 0.1), "chinchilla: rms": (0.0156, 1e-4),
        },
    ),
    Target(
        "S4",
        MADE,
        "lr_annealing on a cosine schedule, sd 0.005; the end of another schedule predicted",
        lr_annealing,
        {
            "s1 at the end, cosine": (3.292515, 1e-5), "s1 at the end, test": (5.385015, 1e-5),
            "s2 at the end, cosine": (0.266590, 1e-5), "s2 at the end, test": (0.203800, 1e-5),
            "true loss": (2.71123, 1e-5), "exact: error": (0, 1e-4), "noisy: error": (0, 2e-3),
        },
    ),
    Target(
        "S5",
        MADE,
        "log_law, 12 budgets, 1 %",
        log_law,
        {
            "log_A": (-2, 2e-3), "alpha": (0.2, 2e-4), "beta": (3, 3e-3), "at 1e11": (28.8127, 1e-3),
            "at 1e11, noisy": (28.47, 0.05),
        },
    ),
    Target(
        "S7",
        MADE,
        "generative, 9 budgets",
        generative,
        {"E0": (0.8, 8e-5), "C0": (2e4, 2), "alpha": (0.22, 2.2e-5)},
    ),
    Target(
        "S8",
        MADE,
        "broken_power on 18 points up to 3e5, 8 beyond",
        broken,
        {
            "a": (0.3, 3e-4), "b": (2, 2e-3), "c0": (0.05, 5e-5), "c1": (0.6, 6e-4), "d1": (1e4, 10),
            "f1": (0.25, 2.5e-4),
            "beyond, rms of ln y": (0, 1e-4),
        },
    ),
]  # fmt: skip
