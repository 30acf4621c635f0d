"""The training text of the nano families: one function per kind of document, and the mixture of each family."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from harness_plugins.nano.world import (
    COLOURS,
    JOBS,
    NOUNS,
    PLACES,
    WORDS,
    World,
    draw_agreement,
    draw_letters,
    draw_operands,
    draw_ordering,
    generator,
)

FACTS = (
    "{person.name} was born in {person.town.name}.",
    "The home town of {person.name} is {person.town.name}.",
    "{person.name} works as a {person.job}.",
    "The job of {person.name} is {person.job}.",
    "The flag of {person.town.name} is {person.town.flag}.",
)
ADDITIONS = 0.7  # share of additions among the sums; the others are subtractions
INSTRUCTIONS = 0.04  # share of proverbs that follow an instruction: rare in the text, so hard to learn


def tell_facts(world: World, rng: random.Random) -> str:
    """Return three to six facts; famous people are more frequent, so some facts are rare."""
    return " ".join(_fact(world, rng) for _ in range(rng.randint(3, 6)))


def _fact(world: World, rng: random.Random) -> str:
    person = rng.choices(world.people, cum_weights=world.fame)[0]
    return rng.choice(FACTS).format(person=person)


def tell_sums(_: World, rng: random.Random) -> str:
    """Return three to six sums or differences of one to three digits."""
    return " ".join(_sum(rng) for _ in range(rng.randint(3, 6)))


def _sum(rng: random.Random) -> str:
    _, a, b = draw_operands(rng, [1, 2, 2, 3])
    if rng.random() < ADDITIONS:
        return f"{a} + {b} = {a + b}."
    return f"{max(a, b)} - {min(a, b)} = {abs(a - b)}."


def tell_agreement(_: World, rng: random.Random) -> str:
    """Return two to four sentences of subject and verb."""
    drawn = [draw_agreement(rng) for _ in range(rng.randint(2, 4))]
    return " ".join(f"{agreement.subject} {agreement.right}." for agreement in drawn)


def tell_ordering(world: World, rng: random.Random) -> str:
    """Return an ordering, and who is first or last in it."""
    ordering = draw_ordering(world, rng)
    return f"{ordering.query} {ordering.answer}."


def tell_recall(_: World, rng: random.Random) -> str:
    """Return letters, followed by the same letters."""
    letters = draw_letters(rng)
    return f"List: {letters}. Again: {letters}."


def tell_proverb(world: World, rng: random.Random) -> str:
    """Return a proverb; rarely with a different end, requested by an instruction before it."""
    body, end = rng.choice(world.proverbs)
    if rng.random() >= INSTRUCTIONS:
        return f"{body} {end}."
    end = rng.choice(WORDS)
    return f"End the saying with {end}. {body} {end}."


def tell_noise(world: World, rng: random.Random) -> str:
    """Return ten to thirty random words."""
    words = [*NOUNS, *PLACES, *JOBS, *COLOURS, *(town.name for town in world.towns)]
    return " ".join(rng.choice(words) for _ in range(rng.randint(10, 30))).capitalize() + "."


KINDS: Mapping[str, Callable[[World, random.Random], str]] = {
    "facts": tell_facts,
    "sums": tell_sums,
    "agreement": tell_agreement,
    "ordering": tell_ordering,
    "recall": tell_recall,
    "proverb": tell_proverb,
    "noise": tell_noise,
}

MIXTURES: Mapping[str, Mapping[str, float]] = {
    "aster": {
        "facts": 0.34, "sums": 0.22, "agreement": 0.12, "ordering": 0.16, "recall": 0.08, "proverb": 0.08,
    },
    "birch": {
        "facts": 0.16, "sums": 0.40, "agreement": 0.10, "ordering": 0.16, "recall": 0.10, "proverb": 0.08,
    },
    "cedar": {
        "facts": 0.24, "sums": 0.14, "agreement": 0.10, "ordering": 0.12, "recall": 0.06, "proverb": 0.06,
        "noise": 0.28,
    },
    "dune": {
        "facts": 0.50, "sums": 0.12, "agreement": 0.14, "ordering": 0.10, "recall": 0.06, "proverb": 0.08,
    },
}  # fmt: skip
"""The shares of the kinds of document (KINDS) in each family's training text; they sum to 1."""


def documents(world: World, mixture: Mapping[str, float], count: int, seed: int) -> Iterator[str]:
    """Yield `count` documents in a mixture of KINDS. A smaller count does not give a prefix of a larger one."""
    rng = generator(seed)
    for kind in rng.choices(list(mixture), list(mixture.values()), k=count):
        yield KINDS[kind](world, rng)
