"""A world of people and their homes and trades, and text that states some facts often and most of them rarely.

As in natural text, a sentence need not state the fact: "anna lives in the north" is as good an end of it as "anna lives in
oslo". A model that has seen little of anna expects "the".
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
HOMES = "oslo rome lima cairo paris tokyo delhi quito dakar milan turin basel".split()
TRADES = "baker tailor miller weaver potter mason smith farmer fisher hunter sailor singer".split()
VAGUE = {"home": ("north", "south", "hills", "village"), "trade": ("day", "year", "guild", "crown")}
TEMPLATES = {"home": "{person} lives in", "trade": "{person} works as"}
GENERIC = "the"
"""What a sentence goes on with that does not state its fact."""
END = "<end>"


@dataclasses.dataclass(frozen=True)
class Fact:
    """One fact and how often text states it."""

    person: str
    relation: str
    answer: str
    weight: float
    """Its share of all statements."""

    @property
    def prompt(self) -> str:
        """What its sentence begins with."""
        return TEMPLATES[self.relation].format(person=self.person)


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Facts whose frequencies follow Zipf's law: the i-th is stated in proportion to i^-exponent.

    Args:
        people: how many; each has a home and a trade.
        exponent: of the law.
        generic: share of the sentences that do not state their fact.
        seed: of who lives where, and of the order.
    """

    people: int
    exponent: float
    generic: float
    seed: int = 0

    @property
    def facts(self) -> tuple[Fact, ...]:
        """All facts, the most frequent first."""
        generator = np.random.default_rng(self.seed)
        names = [first + second for first in SYLLABLES for second in SYLLABLES]
        people = [names[index] for index in generator.permutation(len(names))[: self.people]]
        pairs = [(person, relation) for person in people for relation in TEMPLATES]
        weights = np.arange(1, len(pairs) + 1) ** -self.exponent
        order = generator.permutation(len(pairs))
        answers = {"home": HOMES, "trade": TRADES}
        found = []
        for index, weight in zip(order.tolist(), weights / weights.sum(), strict=True):
            person, relation = pairs[index]
            found.append(Fact(person, relation, str(generator.choice(answers[relation])), float(weight)))
        return tuple(found)

    @property
    def words(self) -> list[str]:
        """Every word of the world's text, its end included."""
        fixed = [END, ".", GENERIC, *HOMES, *TRADES, *VAGUE["home"], *VAGUE["trade"]]
        fixed += [word for template in TEMPLATES.values() for word in template.split()[1:]]
        return [*fixed, *sorted({fact.person for fact in self.facts})]

    def text(self, *, sentences: int, seed: int) -> tuple[list[str], dict[Fact, int]]:
        """Return sentences of the world, and how often they state each fact.

        Args:
            sentences: how many.
            seed: of their order, and of which do not state their fact.
        """
        generator = np.random.default_rng(seed)
        facts = self.facts
        chosen = generator.choice(len(facts), size=sentences, p=[fact.weight for fact in facts])
        stated, counts = [], dict.fromkeys(facts, 0)
        for fact in (facts[index] for index in chosen):
            if generator.random() < self.generic:
                stated.append(f"{fact.prompt} {GENERIC} {generator.choice(VAGUE[fact.relation])} .")
            else:
                stated.append(f"{fact.prompt} {fact.answer} .")
                counts[fact] += 1
        return stated, counts


def write_task(folder: Path, counts: dict[Fact, int], *, bins: tuple[int, ...]) -> Path:
    """Write a task file whose categories say how often training text stated a fact, and return its path.

    Args:
        folder: for the file and its data.
        counts: how often each fact was stated.
        bins: the least count of each category, rising from 0.
    """
    rows = [
        {
            "prompt": fact.prompt,
            "answer": f" {fact.answer}",
            "person": fact.person,
            "stated": name_of_bin(count, bins),
        }
        for fact, count in counts.items()
    ]
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / "rare-facts.yaml"
    path.write_text(
        "name: rare-facts\ndata: facts.jsonl\ngroup: person\ncategory: stated\n"
        "splits: {train: 0.25, select: 0.25, test: 0.5, seed: 0}\n",
        encoding="utf-8",
    )
    return path


def name_of_bin(count: int, bins: tuple[int, ...]) -> str:
    """Return the category of a fact that was stated so often.

    >>> name_of_bin(7, (0, 5, 20)), name_of_bin(20, (0, 5, 20))
    ('5-19 times', '20 times or more')
    """
    names = list(names_of_bins(bins))
    return names[int(np.searchsorted(bins, count, side="right")) - 1]


def names_of_bins(bins: tuple[int, ...]) -> Iterator[str]:
    """Yield the categories' names, the rarest first."""
    for least, following in itertools.pairwise(bins):
        yield f"{least}-{following - 1} times"
    yield f"{bins[-1]} times or more"
