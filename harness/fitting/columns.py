"""Columns of points: rename inputs, reject implausible units, and read them as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from harness.checkpoints.flops import training_flops
from harness.errors import LawError, UsageError, choose, suggest
from harness.fitting.laws import Column
from harness.fitting.runs import label, some
from harness.types import Bools, Floats
from harness.types.columns import ACTIVE_PARAMS

DOUBTFUL = 4.0  # forward passes alone are 2 N D (1/3 of 6 N D), recomputed activations 8 N D (4/3), attention up to 2
ABSURD = 100.0  # active experts are 1/20 of all parameters, embeddings of tiny models 12 times the rest; units are 1e3
MOST_RATIO = 1e6  # tokens per parameter of most rows; models of 1e6 parameters saw 1e11 tokens
LEAST_RATIO = 0.01  # of the row with the most
FEWEST = {"params": 1e4, "tokens": 1e5, "flops": 1e9}  # if the largest value is smaller, the unit is wrong
COUNTS = ("flops", "params", "tokens")  # laws take their logarithms
LABELS = ("family", "task", "flops_convention", "tokens_convention")
WHAT = {"params": "parameters", "tokens": "training tokens", "flops": "training FLOPs"}


def floats(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with whole numbers as float64: 6 params tokens of large models exceeds 64-bit integers."""
    whole = [name for name in frame.columns if pd.api.types.is_integer_dtype(frame[name].dtype)]
    kinds = {name: "float64" if isinstance(frame[name].dtype, np.dtype) else "Float64" for name in whole}
    return frame.astype(kinds)


def renamed(
    points: pd.DataFrame, pairs: Sequence[str] = (), params_column: str | None = None, run: str | None = None
) -> pd.DataFrame:
    """Return points with columns renamed as `theirs=ours` says, or computed where `theirs` is an expression.

    `tokens_b * 1e9=tokens` sets tokens; a pair can use the columns that earlier pairs set. `params_column` names the
    column to use as params, `run` the one that identifies runs. Expressions are computed in float64. Raises UsageError
    for an invalid pair or an unknown column.
    """
    frame = points.copy()
    named = [f"{theirs}={ours}" for theirs, ours in ((params_column, "params"), (run, "run")) if theirs]
    for pair in [*pairs, *named]:
        theirs, sign, ours = (part.strip() for part in pair.rpartition("="))
        if not (theirs and sign and ours.isidentifier()):
            raise UsageError(f"--map {pair!r}: expected THEIRS=OURS, such as n_params=params")
        frame = frame.assign(**{ours: _theirs(frame, theirs)})
    if params_column == ACTIVE_PARAMS and "params" in points.columns:
        frame = frame.assign(params=frame["params"].fillna(points["params"]))  # all of a dense model
    return frame


def labelled(pairs: Sequence[str], label: str | None) -> list[str]:
    """Return pairs theirs=ours, including the one for the column with the names of models."""
    return [*pairs, *([f"{label}=label"] if label else [])]


def _theirs(points: pd.DataFrame, theirs: str) -> pd.Series:
    if theirs in points.columns:
        return points[theirs]
    try:
        return pd.Series(floats(points).eval(theirs), index=points.index)
    except Exception as error:  # pandas raises errors of many kinds for a bad expression
        columns = choose(points.columns)
        raise UsageError(
            f"{theirs!r} is neither a column nor an expression of columns, which are: {columns}; expected THEIRS=OURS, "
            "such as n_params=params"
        ) from error


def _numbers(points: pd.DataFrame, name: str) -> pd.Series[float]:
    return pd.to_numeric(points[name], errors="coerce").astype(np.float64)


def check_units(points: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Raise LawError for counts in a wrong unit; return warnings of FLOPs that are far from 6 N D.

    Examples are tokens in billions, parameters in millions, or FLOPs that overflowed.
    """
    warnings = _check_flops(points) if "flops" in names else ()
    for name in [name for name in FEWEST if name in names and name in points.columns]:
        values = pd.to_numeric(points[name], errors="coerce").to_numpy(dtype=np.float64)
        most = float(np.nanmax(values)) if np.isfinite(values).any() else np.inf
        if 0 < most < FEWEST[name]:
            raise LawError(
                f"{name} are {np.nanmin(values):.4g} to {most:.4g}, too few for {WHAT[name]}; if they are in millions "
                f"or billions, convert them with --map '{name} * 1e6={name}' or --map '{name} * 1e9={name}'"
            )
    if set(names) & set(FEWEST):
        _check_ratio(points)
    return warnings


def _check_ratio(points: pd.DataFrame) -> None:
    """Raise LawError if tokens per parameter are such that one of them must be in another unit than the other."""
    if not {"params", "tokens"} <= set(points.columns):
        return
    params, tokens = (_numbers(points, name) for name in ("params", "tokens"))
    ratio = (tokens / params)[(params > 0) & (tokens > 0) & np.isfinite(params) & np.isfinite(tokens)]
    given = "tokens_convention" not in points.columns
    if ratio.empty or (ratio.median() <= MOST_RATIO and (ratio.max() >= LEAST_RATIO or not given)):
        return
    wrong = "params" if ratio.median() > MOST_RATIO else "tokens"
    raise LawError(
        f"params are {params.min():.4g} to {params.max():.4g} and tokens {tokens.min():.4g} to {tokens.max():.4g}, or "
        f"{ratio.min():.3g} to {ratio.max():.3g} tokens per parameter; if {wrong} are in millions, convert them with "
        f"--map '{wrong} * 1e6={wrong}'"
    )


def _check_flops(points: pd.DataFrame) -> tuple[str, ...]:
    """Compare FLOPs with 6 N D: raise LawError if no convention explains the factor, else return warnings."""
    if not {"flops", "params", "tokens"} <= set(points.columns):
        return ()
    ratio = _conventional(points)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.exp(np.abs(np.log(np.maximum(ratio, 0.0))))
    absurd, doubtful = factor > ABSURD, factor > DOUBTFUL
    if absurd.any():
        row = points[absurd].iloc[0]
        raise LawError(
            f"flops are {row['flops']:.4g} for {label(row)}, {ratio[absurd][0]:.3g} times 6 x params x tokens; "
            f"{int(absurd.sum())} of {len(points)} rows differ by a factor above {ABSURD:g}, or are not above 0. "
            "No convention explains that, but a wrong unit or an integer overflow does; correct the column, or compute "
            "it with --map '6 * params * tokens=flops'"
        )
    if not doubtful.any():
        return ()
    warning = (
        f"flops are {ratio[doubtful].min():.3g} to {ratio[doubtful].max():.3g} times 6 x params x tokens in "
        f"{int(doubtful.sum())} of {len(points)} rows; conventions for dense models explain a factor of up to "
        f"{DOUBTFUL:g}, so check the units, or count active params only"
    )
    return (warning,)


def expect_one_model(params: Floats, tokens: Floats, flops: Floats) -> None:
    """Raise UsageError if no convention of FLOPs explains that models (n,) have these three; NaN is unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.atleast_1d(flops / (training_flops(1.0, 1.0) * params * tokens))
        wrong = np.abs(np.log(ratio)) > np.log(ABSURD)
    if wrong.any():
        raise UsageError(
            f"flops of the model are {ratio[wrong][0]:.3g} times 6 x params x tokens; expected the three of one model: "
            "leave out flops, or params and tokens"
        )


def _conventional(points: pd.DataFrame) -> Floats:
    """Return FLOPs / 6 N D (n,), NaN where unknown.

    N counts all parameters, those outside embeddings, or those that a token uses, whichever is closest.
    """
    flops, tokens = (_numbers(points, name) for name in ("flops", "tokens"))
    names = [name for name in ("params", "params_non_embedding", ACTIVE_PARAMS) if name in points.columns]
    products = [training_flops(1.0, 1.0) * _numbers(points, name) * tokens for name in names]
    ratios = np.array([(flops / product.where(product > 0)).to_numpy() for product in products])
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.nan_to_num(np.abs(np.log(np.maximum(ratios, 0.0))), nan=np.inf)
    return np.asarray(ratios[np.argmin(distance, axis=0), np.arange(len(points))])


def query(frame: pd.DataFrame, expression: str | None) -> pd.DataFrame:
    """Return the rows for which a pandas expression is true, all of them without one.

    Integers are converted to float64 to avoid overflow.
    """
    if not expression:
        return frame
    numbers = floats(frame) if frame.index.is_unique else floats(frame).reset_index(drop=True)
    try:
        is_selected = numbers.index.isin(numbers.query(expression).index)
    except Exception as error:  # pandas raises errors of many kinds for a bad expression
        raise UsageError(f"{expression!r} cannot be applied: {error}; columns are: {choose(frame.columns)}") from error
    return frame[is_selected]


def column(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column (n,) of finite numbers, above 0 for COUNTS; raise LawError naming the invalid points."""
    if name not in frame.columns:
        raise LawError(f"the points have no column {name!r}; {suggest(name, frame.columns)}")
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
    _refuse(frame, ~np.isfinite(values), f"{name} is missing or not a number", f"{name} == {name}")
    _refuse(frame, (values <= 0) & (name in COUNTS), f"{name} must be above 0, but is not", f"{name} > 0")
    return values


def arrays(frame: pd.DataFrame, names: Iterable[str]) -> dict[str, Floats]:
    """Return columns (n,) as `column` reads them, by name."""
    return {name: column(frame, name) for name in names}


def readable(frame: pd.DataFrame, name: str) -> Column:
    """Return a feature (n,): numbers, NaN where missing; or text. COUNTS must not be missing."""
    if name in COUNTS or name not in frame.columns:
        return column(frame, name)
    if frame[name].dtype.kind == "f":
        return frame[name].to_numpy(dtype=np.float64)
    numeric = pd.to_numeric(frame[name], errors="coerce")
    is_text = bool((numeric.isna() & frame[name].notna()).any())
    return frame[name].astype(str).to_numpy() if is_text else numeric.to_numpy(dtype=np.float64)


def trials(frame: pd.DataFrame, name: str) -> Floats:
    """Return the number of trials (n,) of each rate in a column; raise LawError if it is unknown."""
    trials_column = next((c for c in ("trials", f"{name}_n") if c in frame.columns), None)
    if trials_column is None:
        raise LawError(
            f"the binomial objective needs a column trials (or {name}_n) beside {name}; choose another objective"
        )
    values = column(frame, trials_column)
    _refuse(
        frame,
        (values < 1) | (values % 1 != 0),
        f"{trials_column} is not a whole number of 1 or more",
        f"{trials_column} >= 1",
    )
    return values


def check_errors(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise LawError for a standard error below 0, or a number of documents below 1, of some measured columns."""
    for name in names:
        for column_name, least in ((f"{name}_stderr", 0.0), (f"{name}_n", 1.0)):
            if column_name in frame.columns:
                bad = (_numbers(frame, column_name) < least).to_numpy()
                _refuse(frame, bad, f"{column_name} is less than {least:g}", f"{column_name} >= {least:g}")


def shared_labels(points: pd.DataFrame) -> dict[str, str]:
    """Return family, task and conventions that all points share."""
    shared = [name for name in LABELS if name in points and len(set(points[name])) == 1]
    return {name: str(points[name].iloc[0]) for name in shared}


def effective_documents(points: pd.DataFrame, name: str) -> float:
    """Return the effective number of documents of the rates, from their standard errors; NaN if unknown.

    p (1 - p) / stderr^2 of the median point between 0 and 1; the number of documents if all points are 0 or 1.
    """
    if not {f"{name}_n", f"{name}_stderr"} <= set(points.columns):
        return float("nan")
    p, n, errors = (pd.to_numeric(points[c]).to_numpy(np.float64) for c in (name, f"{name}_n", f"{name}_stderr"))
    inside = (p > 0) & (p < 1) & (errors > 0)
    if ((p < 0) | (p > 1)).any() or not np.isfinite(n).all():
        return float("nan")
    return float(np.median(p[inside] * (1 - p[inside]) / errors[inside] ** 2) if inside.any() else np.median(n))


def _refuse(frame: pd.DataFrame, bad: Bools, why: str, without: str) -> None:
    """Raise LawError if some points are invalid, naming the first five."""
    if bad.any():
        raise LawError(f"{why} for {some(frame, bad)}; correct it, or select points with where {without!r}")
