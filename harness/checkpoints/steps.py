"""Ranges of steps, such as 100..3200 *2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.errors import FamilyError

MOST = 100_000  # steps of a range
LARGEST = 10**18  # a step is below


def parse_steps(text: str | int | Iterable[int]) -> tuple[int, ...]:
    """Expand a range of steps, in ascending order and without repeats.

    >>> parse_steps("100, 200, 400..3200 *2")
    (100, 200, 400, 800, 1600, 3200)
    >>> parse_steps("0..3000 +1000")
    (0, 1000, 2000, 3000)
    """
    if isinstance(text, str):
        return tuple(sorted(_all_of(text.split(","))))
    steps = [text] if isinstance(text, int) else list(text) if isinstance(text, Iterable) else [text]
    if not steps or not all(type(step) is int and abs(step) < LARGEST for step in steps):
        raise FamilyError(f"steps {text!r}: expected integers, or a range such as 100..3200 *2")
    return tuple(sorted(set(steps)))


def _all_of(items: Sequence[str]) -> set[int]:
    steps, count = set[int](), 0
    for item in items:
        expanded = _expand(item)
        steps.update(expanded)
        count += len(expanded)
        if count > MOST:
            raise FamilyError(f"step range {item.strip()!r} makes them {count} steps; expected {MOST} at most")
    return steps


def _expand(item: str) -> Sequence[int]:
    match = re.fullmatch(r"\s*(\d{1,18})\s*(?:\.\.\s*(\d{1,18})\s*([*+])\s*(\d{1,18}))?\s*", item)
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
    if sign == "+":
        return _bounded(range(first, last + 1, stride), item)
    steps = [first]
    while (step := steps[-1] * stride) <= last:
        steps.append(step)
    return steps


def _bounded(steps: range, item: str) -> range:
    if len(steps) > MOST:
        raise FamilyError(f"step range {item.strip()!r} has {len(steps)} steps; expected {MOST} at most")
    return steps
