"""Checks of what an engine returns, so that an engine that breaks its contract is named with what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from harness.errors import EngineError
from harness.types import ChoiceScore, Engine, EngineInfo, Tokenizer
from harness.types.json import JsonObject

INTEGERS = (int, np.integer)


def expect_info(info: object, engine: str) -> EngineInfo:
    """Return the properties of a checkpoint that `inspect` of an engine gave; raise EngineError for invalid ones."""
    if not isinstance(info, EngineInfo):
        raise EngineError(f"inspect of engine {engine!r} returned {info!r}; expected a harness.EngineInfo")
    for name in ("dtype", "quantisation", "shape"):
        if not isinstance(getattr(info, name), str):
            raise EngineError(f"inspect of engine {engine!r} gives {name} {getattr(info, name)!r}; expected text")
    if not isinstance(info.max_length, INTEGERS) or info.max_length < 2:
        raise EngineError(f"inspect of engine {engine!r} gives max_length {info.max_length!r}; expected 2 or more")
    return info


def expect_tokenizer(tokenizer: Tokenizer, engine: str) -> Tokenizer:
    """Return the tokenizer of an engine; raise EngineError if it does not return a list of token ids for a text."""
    ids = tokenizer.encode_batch(["a b"])
    is_list = isinstance(ids, Sequence) and len(ids) == 1 and isinstance(ids[0], (Sequence, np.ndarray))
    if not is_list or not all(isinstance(token, INTEGERS) and token >= 0 for token in ids[0]):
        raise EngineError(
            f"the tokenizer of engine {engine!r}: encode_batch(['a b']) returned {ids!r}; expected one list of token "
            "ids, 0 or more"
        )
    return tokenizer


def expect_score(score: ChoiceScore, continuations: int) -> None:
    """Raise EngineError unless a score has one value per continuation of its request."""
    for name in ("logprobs", "is_greedy"):
        values = getattr(score, name)
        if values is None and name == "is_greedy":
            continue
        if not isinstance(values, np.ndarray) or values.shape != (continuations,):
            told = f"an array {values.shape}" if isinstance(values, np.ndarray) else repr(values)
            raise EngineError(
                f"the engine returned {told} as {name} of a request; expected a numpy array ({continuations},), one "
                "value per continuation"
            )


def provenance_of(engine: Engine, name: str) -> JsonObject:
    """Return what an engine says of itself; raise EngineError if it is no mapping of JSON values."""
    described = engine.describe()
    try:
        if not isinstance(described, Mapping):
            raise TypeError("it is no mapping")
        json.dumps(dict(described))
    except (TypeError, ValueError) as error:
        raise EngineError(
            f"describe() of engine {name!r} returned {described!r}; expected a mapping of JSON values: {error}"
        ) from error
    return dict(described)
