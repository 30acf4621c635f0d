"""The contract of samplers; part of `harness.testing`."""

from __future__ import annotations

import numpy as np

from harness.testing.findings import collected
from harness.types import Floats, Ints, Sampler

RATES = np.array([0.0, 0.001, 0.1, 0.5, 1.0])  # pass rates of the simulated documents


def check_sampler(sampler: Sampler) -> None:
    """Check a sampler: sampling of each document ends, takes at most `at_most` samples, and ignores other documents.

    Raises an AssertionError that lists all failures.
    """
    with collected(f"sampler {type(sampler).__name__}") as findings:
        findings.vital(_expect, sampler)
        findings.vital(_check_answer, sampler)
        findings.run(_check_end, sampler)


def _expect(sampler: Sampler) -> None:
    assert isinstance(sampler, Sampler), f"{sampler!r} lacks more() or at_most"
    at_most = sampler.at_most
    assert isinstance(at_most, (int, np.integer)), f"at_most is {at_most!r}; expected an integer"
    assert at_most >= 1, f"at_most is {at_most}; expected 1 or more"


def _more(sampler: Sampler, drawn: Ints, passed: Ints) -> Ints:
    return np.asarray(sampler.more(drawn, passed))


def _check_answer(sampler: Sampler) -> None:
    drawn = np.zeros(len(RATES), dtype=np.int64)
    more = _more(sampler, drawn, drawn.copy())
    assert more.shape == drawn.shape, f"more() gives {more.shape} for {drawn.shape} documents"
    assert np.issubdtype(more.dtype, np.integer), f"more() gives {more.dtype}; expected integers"
    assert (more >= 0).all(), f"more() gives {more}; expected 0 or more"
    assert (more > 0).all(), f"more() gives {more} for documents without samples; expected 1 or more"


def _check_end(sampler: Sampler, rates: Floats = RATES) -> None:
    rng = np.random.default_rng(0)
    drawn, passed = np.zeros((2, len(rates)), dtype=np.int64)
    while drawn.max() <= sampler.at_most:
        more = _more(sampler, drawn, passed)
        alone = [int(_more(sampler, drawn[[i]], passed[[i]])[0]) for i in range(len(rates))]
        assert more.tolist() == alone, f"more() gives {more} for documents together and {alone} one by one"
        if not more.any():
            return
        drawn, passed = drawn + more, passed + rng.binomial(more, rates)
    raise AssertionError(f"it draws {drawn.max()} samples of a document; at_most is {sampler.at_most}")
