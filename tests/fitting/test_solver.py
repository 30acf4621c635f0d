"""The batch solver against scipy, which solves one problem at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from harness.fitting.solver import Effort, Problem, minimise

X = np.linspace(0.1, 5, 20)
INF = np.full(3, np.inf)


def model(p, x=X):
    with np.errstate(over="ignore"):
        return p[..., 0:1] + p[..., 1:2] * np.exp(-p[..., 2:3] * x)


def problem(y, lower=-INF, upper=INF, huber=False, weights=None, delta=1.0):
    target = np.atleast_2d(y)

    def residuals(params, which):
        return (model(params) - target[which if len(target) > 1 else 0 * which]) / delta

    return Problem(residuals, lower, upper, target, weights, huber)


def noisy(seed=0, size=1, scale=0.02):
    truth = np.array([0.3, 2.0, 0.8])
    return model(truth) + scale * np.random.default_rng(seed).normal(size=(size, len(X)))


def test_each_problem_of_a_batch_is_solved_as_alone_and_as_by_scipy():
    y = noisy(size=6)
    start = np.array([0.0, 1.0, 1.0])
    batch = minimise(problem(y), np.tile(start, (6, 1)))
    assert batch.converged.all()
    for row in range(6):
        scipys = least_squares(lambda p, row=row: model(p)[...] - y[row], start, xtol=1e-14, ftol=1e-14, gtol=1e-14)
        assert batch.params[row] == pytest.approx(scipys.x, rel=1e-6)
        assert batch.cost[row] == pytest.approx(scipys.cost, rel=1e-10)


def test_without_noise_the_truth_comes_back():
    solution = minimise(problem(model(np.array([0.3, 2.0, 0.8]))), np.array([[0.0, 1.0, 1.0]]))
    assert solution.params[0] == pytest.approx([0.3, 2.0, 0.8], rel=1e-9)
    assert solution.cost[0] < 1e-20


def test_bounds_hold_and_the_rest_is_optimal_there():
    lower, upper = np.array([0.5, 0.0, 0.0]), np.array([1.0, 9.0, 9.0])
    y = noisy()
    solution = minimise(problem(y, lower, upper), np.array([[0.7, 1.0, 1.0]]))
    scipys = least_squares(lambda p: model(p) - y[0], [0.7, 1.0, 1.0], bounds=(lower, upper), xtol=1e-14, ftol=1e-14)
    assert solution.params[0, 0] == 0.5
    assert solution.params[0] == pytest.approx(scipys.x, rel=1e-4)
    assert solution.cost[0] <= scipys.cost * (1 + 1e-9)


def test_huber_with_a_small_delta_reaches_scipys_optimum_and_ignores_an_outlier():
    """Residuals are divided by delta, so that the corner is at 1 whatever the units."""
    y = noisy(scale=1e-3)
    y[0, 4] += 0.5
    delta = 1e-3
    solution = minimise(problem(y, huber=True, delta=delta), np.array([[0.0, 1.0, 1.0]]), Effort(1000))
    scipys = least_squares(
        lambda p: (model(p) - y[0]) / delta,
        [0.3, 2.0, 0.8],
        loss="huber",
        f_scale=1.0,
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    assert solution.cost[0] <= scipys.cost * (1 + 1e-6)
    assert solution.params[0] == pytest.approx([0.3, 2.0, 0.8], abs=5e-3)


def test_weights_count_like_repeated_points():
    y = noisy()
    weights = np.random.default_rng(1).integers(0, 4, size=(1, len(X))).astype(float)
    solution = minimise(problem(y, weights=weights), np.array([[0.0, 1.0, 1.0]]))
    repeated = np.repeat(np.arange(len(X)), weights[0].astype(int))
    scipys = least_squares(lambda p: (model(p) - y[0])[repeated], [0.0, 1.0, 1.0], xtol=1e-14, ftol=1e-14)
    assert solution.params[0] == pytest.approx(scipys.x, rel=1e-6)


def test_a_start_that_is_not_finite_keeps_an_infinite_cost():
    solution = minimise(problem(noisy()), np.array([[0.0, 1.0, -1e4], [0.0, 1.0, 1.0]]))
    assert np.isinf(solution.cost[0])
    assert not solution.converged[0]
    assert np.isfinite(solution.cost[1])


def test_rank_tells_how_many_parameters_are_determined():
    flat = Problem(
        lambda p, which: (p[:, 0:1] + p[:, 1:2]) * np.ones_like(X) - 1.0, -INF[:2], INF[:2], np.ones((1, 20))
    )
    assert flat.rank(np.array([0.3, 0.4])) == 1
    assert problem(noisy()).rank(np.array([0.3, 2.0, 0.8])) == 3


def test_leverage_is_the_diagonal_of_the_hat_matrix():
    """Of a straight line: 1 / n + (x - mean)^2 / sum of squares; of units of two points alike, that of their mean."""
    line = Problem(lambda p, _: p[:, :1] + p[:, 1:] * X, -INF[:2], INF[:2], X[None])
    off = X - X.mean()
    expected = 1 / len(X) + off**2 / (off**2).sum()
    assert line.leverage(np.array([0.0, 1.0]), np.arange(len(X))) == pytest.approx(expected)
    assert expected.sum() == pytest.approx(2)
    units = np.arange(len(X)) // 2
    means = off.reshape(-1, 2).mean(axis=1)
    assert line.leverage(np.array([0.0, 1.0]), units) == pytest.approx(2 / len(X) + 2 * means**2 / (off**2).sum())
    held = Problem(lambda p, _: p[:, :1] + p[:, 1:] * X, np.array([0.0, -np.inf]), INF[:2], X[None])
    assert held.leverage(np.array([0.0, 1.0]), np.arange(len(X))) == pytest.approx(X**2 / (X**2).sum())


@pytest.mark.parametrize("huber", [False, True])
def test_equations_that_overflow_end_a_search_without_a_warning(huber):
    """`harness predictability` printed numpy's "overflow encountered in matmul"."""

    def residuals(params, which):
        return 1e160 * params[:, :1] ** 2 * np.array([1.0, 2.0])

    started = np.array([[1e-5], [1e-9]])
    solution = minimise(Problem(residuals, np.array([0.0]), np.array([np.inf]), np.zeros((2, 2)), huber=huber), started)
    assert (solution.params <= started).all()
