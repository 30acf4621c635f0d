"""Checks of the values that engines return; the errors name the engine, the value and the expected one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from harness.errors import EngineError
from harness.host.origins import PLUGIN_ERRORS, describe
from harness.types import ChoiceScore, Engine, EngineInfo, Ints, Tokenizer
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
    ids = token_ids(tokenizer, ["a b"])
    is_list = isinstance(ids, Sequence) and len(ids) == 1 and isinstance(ids[0], (Sequence, np.ndarray))
    if not is_list or not all(isinstance(token, INTEGERS) and token >= 0 for token in ids[0]):
        raise EngineError(
            f"the tokenizer of engine {engine!r}: encode_batch(['a b']) returned {ids!r}; expected one list of token "
            "ids, 0 or more"
        )
    return tokenizer


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> Sequence[list[int]]:
    """Return the token ids of texts; raise EngineError where the tokenizer fails or omits texts."""
    name = f"the tokenizer {type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    try:
        rows: Sequence[list[int] | Ints] = tokenizer.encode_batch(texts)
        count = len(rows)
    except PLUGIN_ERRORS as error:  # tokenizers raise errors of many libraries
        raise EngineError(f"{name}: encode_batch fails: {describe(error)}") from error
    if count != len(texts):
        raise EngineError(f"{name}: encode_batch returned {count} lists for {len(texts)} texts; expected one per text")
    return [row.tolist() if isinstance(row, np.ndarray) else row for row in rows]


def expect_score(score: ChoiceScore, continuations: int) -> None:
    """Raise EngineError unless a score has one number, and one truth value, per continuation of its request."""
    for name, kinds in (("logprobs", "fiu"), ("is_greedy", "b")):
        values = getattr(score, name)
        if values is None and name == "is_greedy":
            continue
        is_array = isinstance(values, np.ndarray)
        if not is_array or values.shape != (continuations,) or values.dtype.kind not in kinds:
            told = f"an array {values.shape} of {values.dtype}" if is_array else repr(values)
            wanted = "bool" if kinds == "b" else "float"
            raise EngineError(
                f"the engine returned {told} as {name} of a request; expected a numpy array ({continuations},) of "
                f"{wanted}, one value per continuation"
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
