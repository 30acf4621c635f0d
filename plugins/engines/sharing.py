"""Determine what a module can share between choices, by comparison with one row per choice in float32.

The decision uses no architecture names or versions: ALiBi, convolutions and other modules that depend on the index of a
token in the row give different numbers or raise errors. The score of a choice must not change when its siblings are
replaced. Weights are upcast for this comparison, because rounding in half precision would hide small differences. A GPU
computes attention with other kernels in half precision, so that their scores are compared as well, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness import Request
from harness.types import Floats
from harness_plugins.engines.forwards import Forwards, rows_of
from harness_plugins.engines.packing import Run, grow, pack
from harness_plugins.engines.ropes import rope_switch
from harness_plugins.engines.upcast import in_float32, is_half

LONGEST = 4096  # largest tree that is packed, in tokens; the mask is quadratic in it
SHORTEST = 48  # smallest context of a model that fits the canary, in tokens
WINDOWS = ("sliding_window", "window_size", "attention_window", "attention_window_size", "attention_chunk_size")
SELECTED = ("index_topk",)  # keys of a config with the number of tokens that sparse attention selects
KINDS = ("layer_types", "layers_block_type", "block_types")  # keys of a config with the types of its layers
STATES = ("mamba", "linear_attention", "recurrent", "recurrence")  # types of layers with a recurrent state
TOLERANCE = 5e-5  # tolerance for two exact passes in float32, relative to 1 + |log-probability|
LEAK = 5e-6  # the same, for a score with other siblings at the same positions
TELLING = 0.05  # nats; smallest effect of the context for weights that decide for other weights
ROUNDING = 8.0  # largest error of shared scores in half precision, relative to that of separate rows
HALF = 0.005  # the same, at least, relative to 1 + |log-probability|
ANY = 2**40  # unlimited budget, for small batches
PREFIX = 8  # tokens that the requests of a canary have in common
TAILS = (3, 5, 2, 4)  # numbers of tokens after the fork in the choices of a canary


@dataclass(frozen=True)
class Sharing:
    """What a module can share: trees of at most `reach` tokens, and prefixes of runs of requests."""

    reach: int = 0
    prefixes: bool = False
    why_not: str = ""
    lasting: bool = False  # whether the decision also holds for other weights of the module

    def __str__(self) -> str:
        return "contexts and what they begin with" if self.prefixes else "contexts" if self.reach else "nothing"


def length_of(config: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """Return the first integer among some keys of a config, or None."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def sharing_of(forwards: Forwards, context: int = LONGEST) -> Sharing:
    """Decide what a module with these weights can share; `context` is its largest sequence length.

    `settle_head` must be called before, so that logits of single positions equal those of full rows. Packing replaces
    the masks of layers with a sliding window, so that trees longer than the window are never packed. Sparse attention
    selects tokens by scores that are often tied at 0, and ties are decided by the length of the row: rows in which all
    tokens are selected are packed only.
    """
    config = forwards.model.config.get_text_config()
    why_not = "" if context >= SHORTEST else f"its context of {context} tokens is too short for the canary"
    why_not = why_not or _state(forwards.model, config)
    if why_not:
        return Sharing(why_not=why_not)
    requests = _canary(config.vocab_size)
    try:
        why_not, lasting = _compared(forwards, requests, context)
    except Exception as error:  # memory may run out when weights are upcast
        return Sharing(why_not=_failure(error))
    if lasting is None:
        return Sharing(why_not=why_not)
    windows = [n for name in WINDOWS + SELECTED if isinstance(n := getattr(config, name, None), int)]
    switch = rope_switch(config.to_dict()) or LONGEST
    return Sharing(min([LONGEST, context, switch, *windows]), not why_not, why_not, lasting)


def _compared(forwards: Forwards, requests: Sequence[Request], context: int) -> tuple[str, bool | None]:
    """Return why a module shares no prefixes, or "", and whether that lasts; None if it shares nothing at all."""
    with in_float32(forwards.model):
        expected, why_not = _expected(forwards, requests)
        why_not = why_not or _try(_canary_differs, forwards, requests, expected, context)
        if why_not:
            return why_not, None
        why_not = _try(_prefix_differs, forwards, requests, expected, context)
        lasting = _is_telling(forwards, requests)
    if is_half(forwards) and (wrong := _try(_halves_differ, forwards, requests, expected, not why_not)):
        return wrong, None
    return why_not, lasting


def sharing_with_other_weights(forwards: Forwards, known: Sharing, context: int) -> Sharing:
    """Return what a module can share, given the decision `known` for its other weights.

    Trees and a prefix are compared again. The handling of siblings and lengths does not depend on the weights.
    """
    _, *requests = _canary(forwards.model.config.get_text_config().vocab_size)
    try:
        with in_float32(forwards.model):
            expected, why_not = _expected(forwards, requests)
            why_not = why_not or _try(_trees_differ, forwards, requests, expected, context)
            if why_not:
                return Sharing(why_not=why_not)
            why_not = known.why_not
            if known.prefixes:
                why_not = _try(_prefix_differs, forwards, requests, expected, context)
    except Exception as error:  # memory may run out when weights are upcast
        return Sharing(why_not=_failure(error))
    return replace(known, prefixes=not why_not, why_not=why_not)


def _state(model: Any, config: Any) -> str:
    """Return why a module with a recurrent state shares nothing (each choice changes the state for the next), or ""."""
    kinds = [kind for name in KINDS for kind in getattr(config, name, None) or ()]
    recurrent = sorted({str(kind) for kind in kinds if any(state in str(kind) for state in STATES)})
    if getattr(model, "_is_stateful", False) or recurrent:
        return f"its layers carry a state from token to token{f' ({recurrent[0]})' if recurrent else ''}"
    return ""


def _try(check: Any, *arguments: Any) -> str:
    try:
        return str(check(*arguments))
    except Exception as error:  # a module may raise any error for unsupported inputs
        return _failure(error)


def _failure(error: Exception) -> str:
    return f"it fails: {error}".splitlines()[0]


def _expected(forwards: Forwards, requests: Sequence[Request]) -> tuple[Floats, str]:
    """Return the log-probabilities of choices in separate rows, or why there are none."""
    try:
        return _plain(forwards, requests), ""
    except Exception as error:  # a module may raise any error in another precision
        return np.array([]), _failure(error)


def _canary(vocabulary: int) -> list[Request]:
    """Return requests with all features of trees (branches, forks, last tokens), which share PREFIX tokens."""
    rng = np.random.default_rng(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(vocabulary, size=n).tolist())

    shared = ids(PREFIX)
    requests = []
    for i in range(3):
        fork = ids(i)
        ends = [(*fork, *ids(n)) for n in TAILS]
        requests.append(Request(i, shared + ids(1 + 4 * i), (*ends, (*fork, *ids(1)), (*ends[0][:-1], *ids(1)))))
    return requests


def _others_replaced(requests: Sequence[Request], vocabulary: int, choice: int) -> list[Request]:
    """Return trees of the same shape, in which only every second tail, from `choice` on, is unchanged.

    The first tree is replaced completely.
    """
    rng = np.random.default_rng(1 + choice)
    changed = []
    for i, request in enumerate(requests):
        ends = list(request.continuations)
        for k in range(1 - choice, len(TAILS), 2):
            begin = len(ends[k]) - TAILS[k]
            ends[k] = ends[k][:begin] + tuple(rng.integers(vocabulary, size=TAILS[k]).tolist())
        context = request.context if i else tuple(rng.integers(vocabulary, size=len(request.context)).tolist())
        ends[-1] = ends[0][:-1] + ends[-1][-1:]
        changed.append(replace(request, context=context, continuations=tuple(ends)))
    return changed


def _canary_differs(forwards: Forwards, requests: Sequence[Request], expected: Floats, context: int) -> str:
    """Return how trees differ from rows, or choices with other siblings from themselves; "" if they agree."""
    vocabulary = forwards.model.config.get_text_config().vocab_size
    rotated = [replace(r, continuations=r.continuations[1:] + r.continuations[:1]) for r in requests]
    variants = [requests, rotated, *(_others_replaced(requests, vocabulary, choice) for choice in (0, 1))]
    row = min(context, sum(len(grow(request).ids) for request in requests))  # each variant has its own row
    in_order, in_rotated, *replaced = _packed(forwards, variants, row)
    if why_not := _difference(in_order, expected):
        return why_not
    here = np.arange(in_order.size).reshape(len(requests), -1)
    if why_not := _difference(in_rotated, in_order[np.roll(here, -1, 1).ravel()]):
        return f"{why_not} in another order"
    for choice, other in enumerate(replaced):
        unchanged = here[1:, choice : len(TAILS) : 2].ravel()
        if why_not := _difference(other[unchanged], in_order[unchanged], LEAK):
            return f"{why_not} with other siblings"
    return ""


def _trees_differ(forwards: Forwards, requests: Sequence[Request], expected: Floats, context: int) -> str:
    """Return how trees in one row differ from separate rows; "" if they agree."""
    (packed,) = _packed(forwards, [requests], context)
    return _difference(packed, expected)


def _is_telling(forwards: Forwards, requests: Sequence[Request]) -> bool:
    """Return whether earlier tokens change scores by far more than the tolerance.

    Weights without attention to earlier tokens, or a head of zeros, would agree with a wrong structure.
    """
    first, other = requests[0], requests[1]
    moved = replace(first, context=other.context[-len(first.context) : -1] + first.context[-1:])
    changed, expected = _packed(forwards, [[moved], [first]], 1)
    return bool(np.abs(changed - expected).mean() >= TELLING)


def _prefix_differs(forwards: Forwards, requests: Sequence[Request], expected: Floats, context: int) -> str:
    """Return how trees after a prefix differ from separate rows; "" if they agree."""
    (packed,) = _packed(forwards, [requests], context - PREFIX, requests[0].context[:PREFIX])
    return _difference(packed, expected)


def _packed(
    forwards: Forwards, variants: Sequence[Sequence[Request]], row: int, shared: tuple[int, ...] = ()
) -> list[Floats]:
    """Return the log-probabilities of lists of requests of one shape, in rows of `row` tokens or the longest tree's."""
    requests = [request for variant in variants for request in variant]
    trees = [grow(replace(request, key=i), len(shared)) for i, request in enumerate(requests)]
    batch = pack(trees, row, ANY, ANY)
    logprobs, _ = forwards.packed(batch, shared).read()
    by_key = {request.key: logprobs[choices] for request, choices in batch.slices()}
    return list(np.concatenate([by_key[i] for i in range(len(trees))]).reshape(len(variants), -1))


def _plain(forwards: Forwards, requests: Sequence[Request]) -> Floats:
    """Return the log-probabilities of choices in separate rows."""
    rows = rows_of(requests)
    order = sorted(range(len(rows)), key=lambda i: (rows[i].request, rows[i].choice))
    logprobs: Floats = forwards.plain(rows).read()[0][order]
    return logprobs


def _difference(logprobs: Floats, expected: Floats, tolerance: float = TOLERANCE) -> str:
    off = np.abs(logprobs - expected)
    if (off <= tolerance * (1 + np.abs(expected))).all():
        return ""
    return f"log-probabilities differ by {off.max():.2g} nats in float32"


def real_tree_differs(forwards: Forwards, request: Request, shared: tuple[int, ...], row: int) -> str:
    """Return how the tree of a request after `shared` differs from separate rows; "" if they agree.

    The tree is the last one in a row of `row` tokens. The first, the longest and the last continuation are compared;
    continuations that differ in the last token only share a row.
    """
    lengths = [len(continuation) for continuation in request.continuations]
    chosen = sorted({0, int(np.argmax(lengths)), len(lengths) - 1})
    read = {request.continuations[k][:-1]: k for k in chosen}
    chosen = sorted(read.values())
    return _try(_tree_differs, forwards, Run([request], shared), chosen, row)


def _tree_differs(forwards: Forwards, run: Run, chosen: Sequence[int], row: int) -> str:
    with in_float32(forwards.model):
        exact, packed = _both(forwards, run, chosen, row)
    if (why_not := _difference(packed, exact)) or not is_half(forwards):
        return why_not
    return _rounds_more(*_both(forwards, run, chosen, row), exact)


def _both(forwards: Forwards, run: Run, chosen: Sequence[int], row: int) -> tuple[Floats, Floats]:
    """Return the log-probabilities of the chosen continuations of a request in separate rows, and in its tree."""
    (request,) = run.requests
    rows = [row for row in rows_of([request]) if row.choice in chosen]
    alone = {row.choice: forwards.plain([row]).read()[0][0] for row in rows}  # one at a time, because they may be long
    side_by_side = max(1, row // len(grow(request, len(run.shared)).ids))
    packed = _packed(forwards, [[request]] * side_by_side, row, run.shared)[-1]
    return np.array([alone[k] for k in chosen]), packed[list(chosen)]


def _halves_differ(forwards: Forwards, requests: Sequence[Request], exact: Floats, prefixes: bool) -> str:
    """Return how trees in half precision, and those after a prefix, differ by more than rounding; "" if they agree."""
    plain = _plain(forwards, requests)
    for shared in ((), requests[0].context[:PREFIX])[: 1 + prefixes]:
        (packed,) = _packed(forwards, [requests], 1, shared)
        if why_not := _rounds_more(plain, packed, exact):
            return why_not
    return ""


def _rounds_more(plain: Floats, packed: Floats, exact: Floats) -> str:
    """Return how shared scores are further from those in float32 than separate rows of the same precision, or ""."""
    off, rounding = np.abs(packed - exact), np.abs(plain - exact).max()
    if (off <= np.maximum(ROUNDING * rounding, HALF * (1 + np.abs(exact)))).all():  # false for NaN
        return ""
    return f"log-probabilities differ by {off.max():.2g} nats in half precision, separate ones by {rounding:.2g}"
