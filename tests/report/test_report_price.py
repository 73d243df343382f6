"""The price in lines: figures, a verdict, and texts before and after."""

from strop.report import price_lines
from strop.runs import Continuation, Price
from strop.statistics import Drift

DRIFT = Drift(kl=0.6, changed=0.4, perplexity=9.0, perplexity_ratio=1.74, texts=64, tokens=3072)
SHOWN = (Continuation("The town lies", "on a hill", "Indonesian Indonesian"),)


def test_a_price_is_told_with_what_it_means_and_what_is_said_before_and_after() -> None:
    assert price_lines(Price(DRIFT, SHOWN)) == [
        "Price: drift 0.60 nats per token, 40.0 % of words changed, perplexity × 1.740 (64 texts the base wrote itself).",
        "  It changes 2 of 5 words the base would say: for this task only.",
        "  The town lies",
        "    before: on a hill",
        "    after:  Indonesian Indonesian",
    ]
    assert len(price_lines(Price(DRIFT, SHOWN), continuations=False)) == 2


def test_where_nothing_changed_no_texts_are_shown_twice() -> None:
    nothing = Drift(kl=0.0, changed=0.0, perplexity=9.0, perplexity_ratio=1.0, texts=64, tokens=3072)
    assert len(price_lines(Price(nothing, SHOWN))) == 2


def test_what_is_not_known_says_why_and_an_older_result_says_nothing() -> None:
    assert price_lines(Price(None, reason="A classifier predicts no next token.")) == [
        "Price: not known. A classifier predicts no next token."
    ]
    assert price_lines(None) == []
