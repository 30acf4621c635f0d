"""A small synthetic world: the facts and draws that the text of the nano families and the tasks share.

The world contains facts (to memorise; rarer facts are harder), sums, agreement between subject and verb, orderings to
reason about, letters to repeat, and proverbs (memorised, which misleads). `documents` generates the training text from
it, `questions` the tasks. All functions use seeded generators, so the same arguments give the same bytes. The order in
which a function draws random numbers is part of its contract: a change of this order changes the tasks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

TOWNS, PEOPLE, PROVERBS = 120, 1500, 60
ONSETS = [
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z",
    "br", "dr", "gl", "kr", "pl", "st", "tr", "sh",
]  # fmt: skip
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "or", "an", "el", "in"]
CODAS = ["", "", "n", "r", "l", "s", "k", "m"]
SHORTEST_NAME = 4

JOBS = [
    "baker", "smith", "weaver", "miller", "sailor", "potter", "scribe", "farmer",
    "hunter", "tailor", "mason", "cook", "singer", "healer", "guard", "tanner",
]  # fmt: skip
COLOURS = ["red", "blue", "green", "white", "black", "gold", "grey", "brown"]
NOUNS = [
    "cat", "dog", "bird", "horse", "child", "farmer", "king", "cook",
    "fox", "bear", "wolf", "goat", "boy", "girl", "duck", "hen",
]  # fmt: skip
PLACES = ["tree", "river", "house", "wall", "gate", "hill", "road", "barn", "well", "field"]
WORDS = NOUNS + PLACES + COLOURS + JOBS
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
IRREGULAR = {"child": "children", "fox": "foxes", "wolf": "wolves"}  # plurals
VERBS = ["run", "sleep", "sing", "wait", "eat", "fall", "swim", "work", "play", "grow"]
RELATIONS = [
    ("taller", "tallest", "shortest"),
    ("older", "oldest", "youngest"),
    ("faster", "fastest", "slowest"),
]

ORDERED = 400  # orderings use only the 400 most famous people


class Town(NamedTuple):
    """A town and the colour of its flag."""

    name: str
    flag: str


class Person(NamedTuple):
    """A person, their job, and their town of birth."""

    name: str
    job: str
    town: Town


class Proverb(NamedTuple):
    """A proverb without its last word, and that word."""

    body: str
    end: str


@dataclass(frozen=True)
class World:
    """The facts of the world, the same for every family; people are sorted by fame, most famous first."""

    towns: tuple[Town, ...]
    people: tuple[Person, ...]
    proverbs: tuple[Proverb, ...]
    fame: tuple[float, ...]  # cumulative weights with which the text mentions people


def draw_world(seed: int = 7) -> World:
    """Draw the facts. All included families and tasks use the world of seed 7."""
    rng, taken = generator(seed), set[str]()
    town_names = [_new_name(rng, 2, taken) for _ in range(TOWNS)]
    names = [_new_name(rng, rng.choice([1, 2, 2]), taken) for _ in range(PEOPLE)]
    homes = [rng.choice(town_names) for _ in names]
    jobs = [rng.choice(JOBS) for _ in names]
    towns = {name: Town(name, rng.choice(COLOURS)) for name in town_names}
    people = [Person(name, job, towns[home]) for name, job, home in zip(names, jobs, homes, strict=True)]
    proverbs = [Proverb(_proverb_body(rng), rng.choice(WORDS)) for _ in range(PROVERBS)]
    zipf = [1 / (rank + 10) for rank in range(PEOPLE)]
    return World(tuple(towns.values()), tuple(people), tuple(proverbs), tuple(accumulate(zipf)))


def generator(seed: int) -> random.Random:
    """Return the generator of a seed."""
    return random.Random(seed)  # noqa: S311  # not for cryptography


def _new_name(rng: random.Random, syllables: int, taken: set[str]) -> str:
    """Return a new name, and add it to `taken`."""
    while True:
        name = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables)) + rng.choice(CODAS)
        if name not in taken and len(name) >= SHORTEST_NAME:
            taken.add(name)
            return name.capitalize()


def _proverb_body(rng: random.Random) -> str:
    who = f"{rng.choice(['A', 'The', 'No', 'Every'])} {rng.choice(COLOURS)} {rng.choice(NOUNS)}"
    return f"{who} never {rng.choice(VERBS)}s by the {rng.choice(PLACES)} without its"


# --- what text and tasks have in common ---------------------------------------------------------------------


class Operands(NamedTuple):
    """Two numbers of at most `digits` digits."""

    digits: int
    a: int
    b: int


class Agreement(NamedTuple):
    """A subject of one to three nouns, the verb form that agrees with its first noun, and the other form."""

    subject: str
    right: str
    wrong: str


class Ordering(NamedTuple):
    """An ordering of people: shuffled pairs and a question, the answer, and all names in order."""

    query: str
    answer: str
    names: list[str]


def draw_operands(rng: random.Random, digits: Sequence[int]) -> Operands:
    """Draw one of `digits`, and two numbers of at most that many digits."""
    n = rng.choice(digits)
    return Operands(n, rng.randrange(10**n), rng.randrange(10**n))


def draw_agreement(rng: random.Random) -> Agreement:
    """Draw a subject with up to two further nouns that may differ in number, and both verb forms."""
    noun, is_many = rng.choice(NOUNS), rng.random() < 0.5
    verb = rng.choice(VERBS)
    subject = f"The {plural(noun) if is_many else noun}"
    for _ in range(rng.choice([0, 1, 1, 2])):
        other = _one_or_many(rng, NOUNS + PLACES)
        subject += f" {rng.choice(['near', 'behind', 'with'])} the {other}"
    forms = (verb, f"{verb}s") if is_many else (f"{verb}s", verb)
    return Agreement(subject, *forms)


def _one_or_many(rng: random.Random, nouns: Sequence[str]) -> str:
    noun, is_many = rng.choice(nouns), rng.random() < 0.5
    return plural(noun) if is_many else noun


def plural(noun: str) -> str:
    """Return the plural of one of NOUNS or PLACES.

    >>> plural("wolf"), plural("hill")
    ('wolves', 'hills')
    """
    return IRREGULAR.get(noun, f"{noun}s")


def draw_ordering(world: World, rng: random.Random) -> Ordering:
    """Draw three or (one time in three) four people, describe their order in pairs, and ask for one end."""
    names = [person.name for person in rng.sample(world.people[:ORDERED], rng.choice([3, 3, 4]))]
    more, most, least = rng.choice(RELATIONS)
    pairs = [f"{a} is {more} than {b}." for a, b in pairwise(names)]
    rng.shuffle(pairs)
    end, answer = (most, names[0]) if rng.random() < 0.5 else (least, names[-1])
    return Ordering(f"{' '.join(pairs)} The {end} is", answer, names)


def draw_letters(rng: random.Random) -> str:
    """Draw three to eight letters, separated by spaces."""
    return " ".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 8)))
