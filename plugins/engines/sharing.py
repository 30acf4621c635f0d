"""What a module may share between choices, decided in float32 by comparison with a row of its own for every choice.

Neither the name of the architecture nor a version is asked: ALiBi, convolutions and whatever else counts tokens by
their place in the row give other numbers, or fail. A choice's score must not change when its siblings are replaced.
Half precision would hide small differences in its rounding, so weights are upcast while structure is decided.
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
from harness_plugins.engines.upcast import in_float32

LONGEST = 4096  # tokens of a tree that is packed; the mask grows with their square
SHORTEST = 48  # tokens of context that a model must have for the canary to fit
WINDOWS = ("sliding_window", "window_size", "attention_window", "attention_window_size", "attention_chunk_size")
KINDS = ("layer_types", "layers_block_type", "block_types")  # where a config lists what its layers are
STATES = ("mamba", "linear_attention", "recurrent", "recurrence")  # kinds of layers that carry a state along the row
TOLERANCE = 5e-5  # share of 1 + |log-probability| by which two exact passes differ in float32 by rounding
LEAK = 5e-6  # the same, by which a score may change with the siblings, which stand in the same places
TELLING = 0.05  # nats by which other contexts must move the scores of weights that decide for others
ANY = 2**40  # a budget for batches that are small
TAILS = (3, 5, 2, 4)  # tokens that the choices of a canary have of their own


@dataclass(frozen=True)
class Sharing:
    """What a module may share: trees of at most `reach` tokens, and what runs of requests begin with."""

    reach: int = 0
    prefixes: bool = False
    why_not: str = ""
    lasting: bool = False  # whether its weights tell enough to decide for other weights of the same module

    def __str__(self) -> str:
        return "contexts and what they begin with" if self.prefixes else "contexts" if self.reach else "nothing"


def length_of(config: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """Return the first of some integers that a config gives, or None."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def rope_switch(config: Mapping[str, Any]) -> int | None:
    """Return the tokens of a sequence beyond which rotary frequencies change for the whole batch, or None."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, Mapping)]
    places = [
        kind.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
        for kind in kinds
        if kind.get("rope_type", kind.get("type")) in {"longrope", "su"}
    ]
    return min((place for place in places if place), default=None)


def sharing_of(forwards: Forwards, context: int = LONGEST) -> Sharing:
    """Decide what a module with these weights may share; `context` is the most tokens that a sequence of it may have.

    Its head was settled before, so that logits of single positions are those of whole rows.

    Layers that look back over a window of tokens do so in a mask that packing replaces, so trees longer than the window
    are never packed.
    """
    config = forwards.model.config.get_text_config()
    why_not = "" if context >= SHORTEST else f"its context of {context} tokens has no room for the canary"
    why_not = why_not or _state(forwards.model, config)
    if why_not:
        return Sharing(why_not=why_not)
    requests, skip = _canary(config.vocab_size)
    with in_float32(forwards.model):
        why_not = _try(_canary_differs, forwards, requests, context)
        if why_not:
            return Sharing(why_not=why_not)
        why_not = _try(_prefix_differs, forwards, requests, skip, context)
        lasting = _is_telling(forwards, requests)
    windows = [n for name in WINDOWS if isinstance(n := getattr(config, name, None), int)]
    switch = rope_switch(config.to_dict()) or LONGEST
    return Sharing(min([LONGEST, context, switch, *windows]), not why_not, why_not, lasting)


def sharing_with_other_weights(forwards: Forwards, known: Sharing, context: int) -> Sharing:
    """Return what a module may share whose other weights decided `known`: trees and a prefix are compared once more.

    How siblings and lengths are told apart is the same code on the same shapes, and is not proven again.
    """
    (_, *requests), skip = _canary(forwards.model.config.get_text_config().vocab_size)
    with in_float32(forwards.model):
        why_not = _try(_trees_differ, forwards, requests, context)
        if why_not:
            return Sharing(why_not=why_not)
        why_not = _try(_prefix_differs, forwards, requests, skip, context) if known.prefixes else known.why_not
    return replace(known, prefixes=not why_not, why_not=why_not)


def _state(model: Any, config: Any) -> str:
    """Return why a module with a recurrent state shares nothing: each choice would change the state for the next."""
    kinds = [kind for name in KINDS for kind in getattr(config, name, None) or ()]
    found = sorted({str(kind) for kind in kinds if any(state in str(kind) for state in STATES)})
    if getattr(model, "_is_stateful", False) or found:
        return f"its layers carry a state from token to token{f' ({found[0]})' if found else ''}"
    return ""


def _try(check: Any, *arguments: Any) -> str:
    try:
        return str(check(*arguments))
    except Exception as error:  # a module may fail in any way at what it was not made for
        return f"it fails there: {error}".splitlines()[0]


def _canary(vocabulary: int) -> tuple[list[Request], int]:
    """Return requests with all that trees have, and how many tokens they share: branches, forks, last tokens only."""
    rng = np.random.default_rng(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(vocabulary, size=n).tolist())

    shared = ids(8)
    requests = []
    for i in range(3):
        fork = ids(i)
        ends = [(*fork, *ids(n)) for n in TAILS]
        requests.append(Request(i, shared + ids(1 + 4 * i), (*ends, (*fork, *ids(1)), (*ends[0][:-1], *ids(1)))))
    return requests, len(shared)


def _others_replaced(requests: Sequence[Request], vocabulary: int, kept: int) -> list[Request]:
    """Return trees of the same shape, in which only every second tail, from `kept` on, is as it was.

    The whole of the first tree is replaced too.
    """
    rng = np.random.default_rng(1 + kept)
    changed = []
    for i, request in enumerate(requests):
        ends = list(request.continuations)
        for k in range(1 - kept, len(TAILS), 2):
            begin = len(ends[k]) - TAILS[k]
            ends[k] = ends[k][:begin] + tuple(rng.integers(vocabulary, size=TAILS[k]).tolist())
        context = request.context if i else tuple(rng.integers(vocabulary, size=len(request.context)).tolist())
        ends[-1] = ends[0][:-1] + ends[-1][-1:]
        changed.append(replace(request, context=context, continuations=tuple(ends)))
    return changed


def _canary_differs(forwards: Forwards, requests: Sequence[Request], context: int) -> str:
    """Return how trees differ from rows, or choices among other siblings from themselves; nothing where they do not."""
    vocabulary = forwards.model.config.get_text_config().vocab_size
    rotated = [replace(r, continuations=r.continuations[1:] + r.continuations[:1]) for r in requests]
    variants = [requests, rotated, *(_others_replaced(requests, vocabulary, kept) for kept in (0, 1))]
    row = min(context, sum(len(grow(request).ids) for request in requests))  # each variant has a row of its own
    found, in_rotated, *replaced = _packed(forwards, variants, row)
    if why_not := _difference(found, _plain(forwards, requests)):
        return why_not
    here = np.arange(found.size).reshape(len(requests), -1)
    if why_not := _difference(in_rotated, found[np.roll(here, -1, 1).ravel()]):
        return f"{why_not} in another order"
    for kept, other in enumerate(replaced):
        same = here[1:, kept : len(TAILS) : 2].ravel()
        if why_not := _difference(other[same], found[same], LEAK):
            return f"{why_not} with other siblings"
    return ""


def _trees_differ(forwards: Forwards, requests: Sequence[Request], context: int) -> str:
    """Return how trees in one row differ from rows of their own; nothing where they do not."""
    (found,) = _packed(forwards, [requests], context)
    return _difference(found, _plain(forwards, requests))


def _is_telling(forwards: Forwards, requests: Sequence[Request]) -> bool:
    """Tell whether earlier tokens change scores by far more than the tolerance.

    Weights that do not attend to anything yet, or a head of zeros, would agree with a wrong structure.
    """
    first, other = requests[0], requests[1]
    moved = replace(first, context=other.context[-len(first.context) : -1] + first.context[-1:])
    found, expected = _packed(forwards, [[moved], [first]], 1)
    return bool(np.abs(found - expected).mean() >= TELLING)


def _prefix_differs(forwards: Forwards, requests: Sequence[Request], skip: int, context: int) -> str:
    """Return how trees side by side behind a prefix differ from trees, which are already known to be exact."""
    (whole,) = _packed(forwards, [requests], 1)
    (found,) = _packed(forwards, [requests], context - skip, requests[0].context[:skip])
    return _difference(found, whole)


def _packed(
    forwards: Forwards, variants: Sequence[Sequence[Request]], row: int, shared: tuple[int, ...] = ()
) -> list[Floats]:
    """Return the log-probabilities of lists of requests of one shape, in rows of `row` tokens or the longest tree's."""
    requests = [request for variant in variants for request in variant]
    trees = [grow(replace(request, key=i), len(shared)) for i, request in enumerate(requests)]
    batch = pack(trees, row, ANY, ANY)
    logprobs, _ = forwards.packed(batch, shared).read()
    found = {request.key: logprobs[choices] for request, choices in batch.slices()}
    return list(np.concatenate([found[i] for i in range(len(trees))]).reshape(len(variants), -1))


def _plain(forwards: Forwards, requests: Sequence[Request]) -> Floats:
    """Return the log-probabilities of choices in rows of their own."""
    rows = rows_of(requests)
    order = sorted(range(len(rows)), key=lambda i: (rows[i].request, rows[i].choice))
    logprobs: Floats = forwards.plain(rows).read()[0][order]
    return logprobs


def _difference(found: Floats, expected: Floats, tolerance: float = TOLERANCE) -> str:
    off = np.abs(found - expected)
    if (off <= tolerance * (1 + np.abs(expected))).all():
        return ""
    return f"log-probabilities differ by {off.max():.2g} nats in float32"


def real_tree_differs(forwards: Forwards, request: Request, shared: tuple[int, ...], row: int) -> str:
    """Return how a real request's tree behind `shared` differs from rows of its own; nothing where it does not.

    The tree is the last that fits into a row of `row` tokens. The first, the longest and the last continuation are
    compared; those that differ in their last token alone share a row.
    """
    lengths = [len(continuation) for continuation in request.continuations]
    chosen = sorted({0, int(np.argmax(lengths)), len(lengths) - 1})
    read = {request.continuations[k][:-1]: k for k in chosen}
    chosen = sorted(read.values())
    with in_float32(forwards.model):
        return _try(_tree_differs, forwards, Run([request], shared), chosen, row)


def _tree_differs(forwards: Forwards, run: Run, chosen: Sequence[int], row: int) -> str:
    (request,) = run.requests
    rows = [row for row in rows_of([request]) if row.choice in chosen]
    alone = {row.choice: forwards.plain([row]).read()[0][0] for row in rows}  # one at a time: they may be long
    side_by_side = max(1, row // len(grow(request, len(run.shared)).ids))
    found = _packed(forwards, [[request]] * side_by_side, row, run.shared)[-1]
    return _difference(found[list(chosen)], np.array([alone[k] for k in chosen]))
