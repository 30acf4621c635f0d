"""Linear layers of the last block that are computed at the scored positions only.

After the last attention, the other positions contribute to no score. Which layers this concerns is determined without
their names: the results of a layer at the other positions are set to zero, and the logits at the scored positions must
not change. This holds for queries, output projection and feed-forward layers, and not for keys and values.

Scores must not depend on this to the last bit. A product of few rows may be computed by another routine with another
rounding. So at least LEAST rows are computed, and layers whose rounding depends on the number of rows are computed at
all positions. Half precision and GPUs are left out, because their products depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from harness_plugins.engines.upcast import blocks_of

LEAST = 16  # smallest number of rows of a product, unless a batch has fewer
MOST = 0.75  # largest share of positions for which it pays
CANDIDATES = 16  # largest number of layers that are examined; the experts of a mixture are more
LENGTH = 12  # tokens of a row in the examination
ROWS = 96  # rows of a product whose rounding is compared with that of fewer rows


class LastBlock:
    """The linear layers of a module that need the scored positions only."""

    def __init__(self, layers: Sequence[Any] = ()) -> None:
        self.layers = list(layers)

    @contextmanager
    def at(self, places: Any, shape: tuple[int, int]) -> Iterator[None]:
        """Compute these layers at flattened `places` (n,) of a batch of `shape` only; their results are 0 elsewhere."""
        import torch

        if not self.layers or max(len(places), LEAST) > MOST * shape[0] * shape[1]:
            yield
            return
        if len(places) < LEAST:
            places = torch.cat([places, places[-1:].expand(LEAST - len(places))])
        handles = [layer.register_forward_pre_hook(partial(_gather, places, shape)) for layer in self.layers]
        handles += [layer.register_forward_hook(partial(_scatter, places, shape)) for layer in self.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _gather(places: Any, shape: tuple[int, int], _: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Select the scored positions of the input (b, r, d) of a layer: (1, n, d)."""
    if not arguments or arguments[0].shape[:-1] != shape:
        return None
    return (arguments[0].flatten(0, 1)[places][None], *arguments[1:])


def _scatter(places: Any, shape: tuple[int, int], _: Any, arguments: tuple[Any, ...], output: Any) -> Any:
    """Put the output (1, n, d) of a layer back to its positions: (b, r, d)."""
    if not arguments or arguments[0].shape[:-1] != (1, len(places)):
        return output
    whole = output.new_zeros(shape[0] * shape[1], output.shape[-1])
    whole[places] = output[0]
    return whole.view(*shape, -1)


def find_last_block(model: Any, logits: Callable[[Any, Any], Any], agree: Callable[[Any, Any], bool]) -> LastBlock:
    """Return the layers of a module that need the scored positions only.

    `logits(ids, places)` computes logits at flattened positions of ids (b, r), and `agree` compares two of them. One
    pass examines all layers: row i has zeros in the results of layer i, and the last row has none.
    """
    import torch

    layers = _candidates(model)
    if not layers:
        return LastBlock()
    shape = (len(layers) + 1, LENGTH)
    vocabulary = model.config.get_text_config().vocab_size
    row = torch.randint(vocabulary, (LENGTH,), generator=torch.Generator().manual_seed(0))
    scored = torch.arange(LENGTH) % 4 == 3
    seen: set[int] = set()

    def clear(i: int, _: Any, __: Any, output: Any) -> Any:
        if output.shape[:-1] != shape:
            return output
        seen.add(i)
        output = output.clone()
        output[i, ~scored] = 0
        return output

    handles = [layer.register_forward_hook(partial(clear, i)) for i, layer in enumerate(layers)]
    try:
        scored_logits = logits(row.expand(shape), scored.repeat(shape[0]).nonzero()[:, 0])
    finally:
        for handle in handles:
            handle.remove()
    *of_layers, unchanged = scored_logits.split(int(scored.sum()))
    return LastBlock([layers[i] for i in sorted(seen) if agree(of_layers[i], unchanged) and _keeps_bits(layers[i])])


def _candidates(model: Any) -> list[Any]:
    """Return the linear layers of the last block, in float32 on a CPU."""
    import torch

    blocks = list(blocks_of(model))
    layers = [layer for layer in blocks[-1].modules() if type(layer) is torch.nn.Linear] if blocks else []
    fit = all(layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu" for layer in layers)
    return layers if fit and len(layers) <= CANDIDATES else []


def _keeps_bits(layer: Any) -> bool:
    """Return whether rows of a product are equal to the bit if it has fewer rows."""
    import torch

    rows = torch.randn(ROWS, layer.in_features, generator=torch.Generator().manual_seed(0))
    whole = layer(rows)
    return all(torch.equal(layer(rows[::step]), whole[::step]) for step in (ROWS // LEAST, 2))
