"""What world-facts asks, and what it leaves out because more than one answer could be defended: the rules of its build.

What each is for is told in `docs/world-facts.md`.
"""

import datetime
import re

# The first template of a relation is the prompt, the other three are its paraphrases. {s} is the subject.
TEMPLATES: dict[str, tuple[str, str, str, str]] = {
    "city-country": (
        "The city of {s} is in",
        "{s} is a city in",
        "{s} is located in",
        "The country where {s} lies is",
    ),
    "us-city-state": (
        "{s} is a city in the US state of",
        "The city of {s} is in the US state of",
        "{s} belongs to the US state of",
        "The US state where {s} lies is",
    ),
    "airport-country": (
        "The country of the airport with the code {s} is",
        "The airport code {s} belongs to an airport whose country is",
        "The country where the airport {s} is found is",
        "The IATA code {s} marks an airport whose country is",
    ),
    "country-capital": (
        "The capital of {s} is",
        "The capital city of {s} is",
        "The name of the capital of {s} is",
        "The city that serves as the capital of {s} is",
    ),
    "capital-country": (
        "{s} is the capital of",
        "The city of {s} is the capital of",
        "{s} is the capital city of",
        "The country whose capital is {s} is",
    ),
    "country-continent": (
        "The continent of {s} is",
        "On a map of the continents, {s} belongs to",
        "The continent to which {s} belongs is",
        "The name of the continent that includes {s} is",
    ),
    "country-currency": (
        "The full name of the currency of {s} is the",
        "In full, the currency of {s} is called the",
        "The full name of the money used in {s} is the",
        "Written in full, the official currency of {s} is the",
    ),
    "country-currency-code": (
        "The currency code of {s} is",
        "The three-letter code of the currency of {s} is",
        "The ISO code for the money of {s} is",
        "The currency of {s} is abbreviated as",
    ),
    "currency-code-name": (
        "The currency code {s} stands for the",
        "In full, the currency with the code {s} is the",
        "The full name behind the currency code {s} is the",
        "Written in full, the currency {s} is the",
    ),
    "country-adjective": (
        "The adjective for things from {s} is",
        "Something that comes from {s} is called",
        "The English adjective for {s} is",
        "The food of {s} is described as",
    ),
    "country-language": (
        "The official language of {s} is",
        "The language of government in {s} is",
        "The only official language of {s} is",
        "The laws of {s} are written in",
    ),
    "country-internet-domain": (
        "The internet domain of {s} is",
        "The top-level domain of {s} is",
        "The country domain used by websites in {s} is",
        "Web addresses from {s} often end in",
    ),
    "country-dialling-code": (
        "The dialling code of {s} is",
        "The international phone prefix of {s} is",
        "The telephone country code for {s} is",
        "To call someone in {s} from abroad, first dial",
    ),
    "country-iso-code": (
        "The ISO three-letter code of {s} is",
        "In ISO 3166, the alpha-3 code of {s} is",
        "The alpha-3 country code for {s} is",
        "The three-letter ISO abbreviation of {s} is",
    ),
    "language-code": (
        "The two-letter code of the {s} language is",
        "The ISO 639-1 code of the {s} language is",
        "The {s} language has the two-letter code",
        "The language code for {s} is",
    ),
    "element-symbol": (
        "The chemical symbol of {s} is",
        "The symbol for the element {s} is",
        "In the periodic table, {s} is written as",
        "Chemists write {s} as",
    ),
    "symbol-element": (
        "The chemical symbol {s} stands for",
        "The element with the symbol {s} is",
        "In the periodic table, {s} means",
        "{s} is the symbol of the element",
    ),
    "element-number": (
        "The atomic number of {s} is",
        "The element {s} has atomic number",
        "The number of protons in an atom of {s} is",
        "The position of {s} in the periodic table is number",
    ),
    "number-element": (
        "The element with atomic number {s} is",
        "Atomic number {s} belongs to the element",
        "The element whose atoms have {s} protons is",
        "Number {s} in the periodic table is",
    ),
}

# The members of the United Nations. Every other territory has either a parent state or a disputed status,
# so that "is in" would have two defensible answers.
UN_MEMBERS = frozenset(
    "AD AE AF AG AL AM AO AR AT AU AZ BA BB BD BE BF BG BH BI BJ BN BO BR BS BT BW BY BZ CA CD CF CG CH CI CL CM CN "
    "CO CR CU CV CY CZ DE DJ DK DM DO DZ EC EE EG ER ES ET FI FJ FM FR GA GB GD GE GH GM GN GQ GR GT GW GY HN HR HT "
    "HU ID IE IL IN IQ IR IS IT JM JO JP KE KG KH KI KM KN KP KR KW KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME "
    "MG MH MK ML MM MN MR MT MU MV MW MX MY MZ NA NE NG NI NL NO NP NR NZ OM PA PE PG PH PK PL PT PW PY QA RO RS RU "
    "RW SA SB SC SD SE SG SI SK SL SM SN SO SR SS ST SV SY SZ TD TG TH TJ TL TM TN TO TR TT TV TZ UA UG US UY UZ VC "
    "VE VN VU WS YE ZA ZM ZW".split()
)
# Countries that go by two English names (Czechia, the Czech Republic): asked about, but never an answer.
TWO_NAMES = frozenset("CD CG CI CV CZ MM SZ TL".split())
COUNTRY_NAMES = {"NL": "Netherlands", "CV": "Cape Verde", "TL": "East Timor"}
ALSO_A_US_STATE = frozenset({"GE"})  # an answer, but never asked about
TAKES_THE = frozenset("AE BS CD CF CG CZ DO GB GM KM MH MV NL PH SB SC US".split())

# Several capitals, a seat of government elsewhere, a recent move, or a capital that not all states accept.
CAPITAL_UNCLEAR = frozenset("BI BJ BO CI GQ ID IL KI LK MM MY NR PW SZ TZ YE ZA".split())
CAPITAL_NAMES = {"KZ": "Astana", "US": "Washington, D.C."}
# Also the name of the capital of a province or of a territory that is not in this list.
CAPITAL_SHARED = frozenset({"Victoria", "Kingston", "Georgetown", "Hamilton", "San Juan", "Washington, D.C."})

CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
# On two continents, between them, or (Australia) with a continent of its own name.
CONTINENT_UNCLEAR = frozenset("AM AU AZ CY EG GE ID KZ PA RU TL TR".split())

CURRENCY_DATE = datetime.date(2026, 6, 1)
CURRENCY_CHANGED = frozenset({"BG"})  # the euro since January 2026, which this CLDR does not know
# More than one full name or spelling in use (pound sterling, rouble), or an odd one in CLDR.
CURRENCY_TWO_NAMES = frozenset("AED AFN BAM BOB BWP BYN CNY GBP GYD ILS KGS KPW LAK MMK MNT PLN RUB SLE USD".split())

# CLDR's name is not the only common one (Persian and Farsi), or the variety is disputed.
LANGUAGE_TWO_NAMES = frozenset("bn dv fa fil zh".split())
# The list of official languages changed lately, or a second one holds in part of the country.
LANGUAGE_UNCLEAR = frozenset("ET MK ML NE".split())
LANGUAGE_NAMES = {"bn": "Bengali", "na": "Nauruan"}
LANGUAGE_CODES_RETIRED = frozenset({"sh"})

# The source gives a noun, an odd spelling, or one of several words in use.
ADJECTIVE_UNCLEAR = frozenset(
    "AR BF BW CV EC GW IS KG KM KN KZ LA LI LS LU MC MK MM MV NP NZ PH SA SB SI SM SR ST SV TJ TL TT UZ VC".split()
)
ELEMENT_TWO_SPELLINGS = frozenset({"aluminum", "cesium", "sulfur"})

CITY_POPULATION_MIN = 50_000
CITIES_PER_COUNTRY = 100
US_CITY_POPULATION_MIN = 25_000
US_CITIES_PER_STATE = 40
AIRPORTS_PER_COUNTRY = 6
ANSWER_WORDS_MAX = 4
DISPUTED_CITIES = frozenset({"Ceuta", "Jerusalem", "Melilla"})
DISPUTED_TIMEZONES = frozenset({"Europe/Simferopol"})
AIRPORTS_UNCLEAR = frozenset({"BSL", "ECN", "MLH"})  # shared by two countries, or on disputed ground
# A place this near to a larger city is often a part of it, not a city of its own; so is what these words name.
PART_DISTANCE_KM = 15.0
DISTRICT_WORDS = frozenset("center circoiscrizione county district east kerulet north south township west".split())
PLAIN_NAME = re.compile(r"[^\W\d_][^\W\d_'. -]*(?:[' .-]+[^\W\d_]+)*\.?")
