"""Ranges of steps, such as 100..3200 *2."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from harness.errors import FamilyError


def parse_steps(text: str | int | Iterable[int]) -> tuple[int, ...]:
    """Expand a range of steps, in ascending order and without repeats.

    >>> parse_steps("100, 200, 400..3200 *2")
    (100, 200, 400, 800, 1600, 3200)
    >>> parse_steps("0..3000 +1000")
    (0, 1000, 2000, 3000)
    """
    if isinstance(text, int):
        return (text,)
    if not isinstance(text, str):
        if not all(isinstance(step, int) for step in text):
            raise FamilyError(f"steps {list(text)!r}: expected integers, or a range such as 100..3200 *2")
        return tuple(sorted(set(text)))
    return tuple(sorted(set(itertools.chain.from_iterable(map(_expand, text.split(","))))))


def _expand(item: str) -> list[int]:
    match = re.fullmatch(r"\s*(\d+)\s*(?:\.\.\s*(\d+)\s*([*+])\s*(\d+))?\s*", item)
    if not match:
        raise FamilyError(f"step range {item.strip()!r}: expected 100, or 100..3200 *2, or 1000..5000 +1000")
    start, stop, sign, by = match.groups()
    if stop is None:
        return [int(start)]
    first, last, stride = int(start), int(stop), int(by)
    if stride < 1 or (sign == "*" and (stride < 2 or first < 1)):
        raise FamilyError(
            f"step range {item.strip()!r} never ends; expected *2 or more from a start of 1 or more, or +1 or more"
        )
    if first > last:
        raise FamilyError(f"step range {item.strip()!r} decreases; expected the first step before the last")
    steps = [first]
    while (step := steps[-1] * stride if sign == "*" else steps[-1] + stride) <= last:
        steps.append(step)
    return steps
