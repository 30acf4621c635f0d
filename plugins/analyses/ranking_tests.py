"""Which pairs of families differ significantly at a scale, and what makes their order doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness import Floats
from harness_plugins.analyses.multiple_tests import CORRECTIONS
from harness_plugins.analyses.rankings import DecideOptions, Ranking, large_rows

ALIKE = 2.0  # ratio of params of large sizes above which their order is not one of families


def clear_pairs(rankings: Sequence[Ranking], options: DecideOptions, small: str | None = None) -> Floats:
    """Return whether the difference of each pair at the large scale, or a small one, is significant over documents.

    1, 0, or NaN where the error of the difference is unknown. `small` is the label of a scale of all rankings.
    """
    from scipy.stats import norm

    p = []
    for ranking in rankings:
        at = ranking.large if small is None else ranking.small[small]
        first, second = np.triu_indices(len(ranking.families), 1)
        values, draws = at.values[ranking.metric], at.draws[ranking.metric]
        difference = values[first] - values[second]
        errors = (draws[:, first] - draws[:, second]).std(axis=0, ddof=1)
        z = np.divide(np.abs(difference), errors, out=np.where(difference == 0, 0.0, np.inf), where=errors > 0)
        p.append(2 * norm.sf(np.where(np.isnan(errors), np.nan, z)))
    corrected = CORRECTIONS[options.correction](np.concatenate(p))
    return np.where(np.isnan(corrected), np.nan, corrected < 1 - options.level)


def unequal_sizes(rankings: Sequence[Ranking], chosen: str) -> Iterator[str]:
    """Yield notes on families with one size, which leave no small scale, and on large sizes that are not alike."""
    for ranking in rankings:
        sizes = ranking.points.groupby("family")["size"].nunique()
        if not ranking.small:
            alone = ", ".join(sorted(sizes.index[sizes == 1])) or "a family"
            yield f"{ranking.task}: no small scale, because {alone} has one size; exclude it with --where"
        large = ranking.points[large_rows(ranking.points, chosen)].groupby("family")["params"].max()
        if large.max() > ALIKE * large.min():
            yield (
                f"{ranking.task}: the large sizes of families have {large.min():.3g} to {large.max():.3g} parameters: "
                "families differ by size as well; choose equal sizes with --large, or see harness rank"
            )


def untested(tested: Floats) -> Iterator[str]:
    """Yield a note on the number of pairs whose difference has no known error."""
    count = int(np.isnan(tested).sum())
    if count:
        yield (
            f"The standard errors of {count} of {len(tested)} pairs are unknown: they have no interval and no test. A "
            "column stderr (or METRIC_stderr) gives them."
        )
