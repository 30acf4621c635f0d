"""A small synthetic world: the training text of the nano families, and the tasks that test them.

    python -m harness_plugins.nano.world FOLDER      writes the documents of every task to FOLDER/TASK.jsonl

The world contains facts (to memorise; rarer facts are harder), sums, agreement between subject and verb, orderings to
reason about, letters to repeat, and proverbs (memorised, which misleads). `tell_*` generates a document of the
training text, `ask_*` a document of a task. All functions use seeded generators, so the same arguments give the same
bytes. The order in which a function draws random numbers is part of its contract: a change of this order changes the
tasks.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

Fields = dict[str, Any]  # a document of a task, as in its line of JSON

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
FACTS = (
    "{person.name} was born in {person.town.name}.",
    "The home town of {person.name} is {person.town.name}.",
    "{person.name} works as a {person.job}.",
    "The job of {person.name} is {person.job}.",
    "The flag of {person.town.name} is {person.town.flag}.",
)

ORDERED = 400  # orderings use only the 400 most famous people
ADDITIONS = 0.7  # share of additions among the sums; the others are subtractions
INSTRUCTIONS = 0.04  # share of proverbs that follow an instruction: rare in the text, so hard to learn
NEAR_MISSES = (-20, -11, -10, -9, -2, -1, 1, 2, 9, 10, 11, 20)  # errors of one digit or one carry
N_CHOICES = 4
N_TEXTS = 400


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
    rng, taken = _generator(seed), set[str]()
    town_names = [_new_name(rng, 2, taken) for _ in range(TOWNS)]
    names = [_new_name(rng, rng.choice([1, 2, 2]), taken) for _ in range(PEOPLE)]
    homes = [rng.choice(town_names) for _ in names]
    jobs = [rng.choice(JOBS) for _ in names]
    towns = {name: Town(name, rng.choice(COLOURS)) for name in town_names}
    people = [Person(name, job, towns[home]) for name, job, home in zip(names, jobs, homes, strict=True)]
    proverbs = [Proverb(_proverb_body(rng), rng.choice(WORDS)) for _ in range(PROVERBS)]
    zipf = [1 / (rank + 10) for rank in range(PEOPLE)]
    return World(tuple(towns.values()), tuple(people), tuple(proverbs), tuple(accumulate(zipf)))


def _generator(seed: int) -> random.Random:
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


# --- shared by text and tasks -------------------------------------------------------------------------------


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


# --- the training text: one function per kind of document ---------------------------------------------------


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
    rng = _generator(seed)
    for kind in rng.choices(list(mixture), list(mixture.values()), k=count):
        yield KINDS[kind](world, rng)


# --- the tasks: one function each ---------------------------------------------------------------------------


def ask_birthplace(world: World, rng: random.Random) -> Fields:
    """Ask where a person was born; all people are equally likely, so rare ones make it hard."""
    person = rng.choice(world.people)
    towns = [town.name for town in world.towns]
    return {"query": f"{person.name} was born in", **_among(rng, person.town.name, towns)}


def ask_job(world: World, rng: random.Random) -> Fields:
    """Ask for a person's job; all people are equally likely."""
    person = rng.choice(world.people)
    return {"query": f"The job of {person.name} is", **_among(rng, person.job, JOBS)}


def ask_flag(world: World, rng: random.Random) -> Fields:
    """Ask for the colour of a town's flag."""
    town = rng.choice(world.towns)
    return {"query": f"The flag of {town.name} is", **_among(rng, town.flag, COLOURS)}


def ask_addition(_: World, rng: random.Random) -> Fields:
    """Ask for a sum of numbers of one to three digits; the wrong choices are near misses."""
    digits, a, b = draw_operands(rng, [1, 2, 3])
    near = [str(a + b + miss) for miss in NEAR_MISSES if a + b + miss >= 0]
    return {"query": f"{a} + {b} =", **_among(rng, str(a + b), near), "digits": digits}


def ask_agreement(_: World, rng: random.Random) -> Fields:
    """Ask for the verb that agrees with a subject."""
    subject, right, wrong = draw_agreement(rng)
    return {"query": subject, **_either(rng, right, wrong)}


def ask_ordering(world: World, rng: random.Random) -> Fields:
    """Ask who is first or last in an ordering; the choices are all its people."""
    query, answer, names = draw_ordering(world, rng)
    rng.shuffle(names)
    return {"query": query, "choices": names, "gold": names.index(answer)}


def ask_saying(world: World, rng: random.Random) -> Fields:
    """Ask to end a proverb as instructed; the wrong choice is its memorised end."""
    body, end = rng.choice(world.proverbs)
    told = rng.choice([word for word in WORDS if word != end])
    return {"query": f"End the saying with {told}. {body}", **_either(rng, told, end)}


def ask_addition_gen(_: World, rng: random.Random) -> Fields:
    """Ask to write a sum of numbers of one to three digits."""
    digits, a, b = draw_operands(rng, [1, 2, 3])
    return {"query": f"{a} + {b} =", "target": str(a + b), "digits": digits}


def ask_recall_gen(_: World, rng: random.Random) -> Fields:
    """Ask to repeat letters."""
    letters = draw_letters(rng)
    return {"query": f"List: {letters}. Again:", "target": letters, "length": len(letters.split())}


def _among(rng: random.Random, answer: str, pool: Sequence[str]) -> Fields:
    """Return the answer and wrong choices from a pool, in random order."""
    choices = [*rng.sample([other for other in pool if other != answer], N_CHOICES - 1), answer]
    rng.shuffle(choices)
    return {"choices": choices, "gold": choices.index(answer)}


def _either(rng: random.Random, right: str, wrong: str) -> Fields:
    """Return the correct and the wrong choice in random order."""
    choices = [right, wrong] if rng.random() < 0.5 else [wrong, right]
    return {"choices": choices, "gold": choices.index(right)}


TASKS: Mapping[str, Callable[[World, random.Random], Fields]] = {
    "nano_birthplace": ask_birthplace,
    "nano_job": ask_job,
    "nano_flag": ask_flag,
    "nano_addition": ask_addition,
    "nano_agreement": ask_agreement,
    "nano_ordering": ask_ordering,
    "nano_saying": ask_saying,
    "nano_addition_gen": ask_addition_gen,
    "nano_recall_gen": ask_recall_gen,
}


def tasks(world: World, count: int = 1000, seed: int = 99) -> dict[str, list[Fields]]:
    """Draw `count` documents of every task, and N_TEXTS documents of nano_text.

    Documents contain {query, choices, gold} for multiple choice, {query, target} for generation, and {text} for plain
    text. All tasks share one generator and draw alternately, so a task cannot be drawn alone.
    """
    rng = _generator(seed)
    turns = [{name: ask(world, rng) for name, ask in TASKS.items()} for _ in range(count)]
    texts = documents(world, MIXTURES["aster"], N_TEXTS, seed + 1)
    found = {name: [turn[name] for turn in turns] for name in TASKS}
    return found | {"nano_text": [{"text": text} for text in texts]}


def write_tasks(folder: Path) -> None:
    """Write the documents of every task to FOLDER/TASK.jsonl; create the folder if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, docs in tasks(draw_world()).items():
        lines = "".join(json.dumps(doc) + "\n" for doc in docs)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tasks to the folder given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness_plugins.nano.world", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="folder for the files TASK.jsonl; created if missing")
    write_tasks(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main()
