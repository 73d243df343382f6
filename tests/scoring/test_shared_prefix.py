"""What all sequences begin with is read once, and nothing comes out otherwise: for every family that allows it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.conftest import ENCODERS, TINY

from strop.scoring import Resources, Scorer, using
from strop.scoring.shared_prefix import SharedPrefix
from strop.tasks import Example, Shot

SHOTS = (Shot("The city of Lyon is in", " France"), Shot("The city of Curitiba is in", " Brazil"))
EXAMPLES = [
    Example(f"The city of {name}{number} is in", f" {answer}", (" France", " Brazil"), shots=SHOTS)
    for number in range(12)
    for name, answer in (("Lyon", "France"), ("Curitiba", "Brazil"), ("Paris", "France"))
]
SLIDING = ("gemma2", "gemma3_text", "mistral")


@pytest.mark.parametrize("family", [family for family in TINY if family not in ENCODERS])
def test_a_shared_prefix_changes_no_score(tiny: Callable[..., Any], small_tokenizer: Any, family: str) -> None:
    model = tiny(family)
    for score in ("exact", "choice", "first_token"):
        whole, shared = (
            Scorer(model, small_tokenizer, EXAMPLES, score, share_prefix=share)  # type: ignore[arg-type]
            for share in (False, True)
        )
        assert (shared.tokens < whole.tokens / 2) is (family not in SLIDING)
        one, other = whole.evaluate(), shared.evaluate()
        assert other.loss == pytest.approx(one.loss, rel=1e-4)
        assert np.array_equal(one.correct, other.correct)
        assert (one.said, one.wanted) == (other.said, other.wanted)
        assert whole.tokens_per_request == shared.tokens_per_request


def test_it_is_read_anew_for_no_batch_and_batches_stay_within_memory(
    tiny: Callable[..., Any], small_tokenizer: Any
) -> None:
    with using(Resources(state_bytes=2**17)):
        scorer = Scorer(tiny("llama"), small_tokenizer, EXAMPLES, "exact", share_prefix=True)
    read = scorer.tokens - sum(batch.input_ids.numel() for batch in scorer.batches)  # the prefix
    row_bytes = read * 3 * 2 * 16 * 4  # three layers' keys and values, of two heads of 8, in float32
    longest = max(batch.input_ids.shape[1] for batch in scorer.batches)
    most = 2**16 // row_bytes * (longest + 1)
    assert len(scorer.batches) > 2
    assert all(batch.input_ids.numel() <= most for batch in scorer.batches)
    first, again = scorer.evaluate(), scorer.evaluate()
    assert np.array_equal(first.loss, again.loss)  # the kept keys and values are not added to


def test_a_short_prefix_is_not_worth_it(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    examples = [Example("Lyon is in", " France"), Example("Lyon is in", " Brazil")]
    scorer = Scorer(tiny("llama"), small_tokenizer, examples, "exact", share_prefix=True)
    assert scorer.tokens == Scorer(tiny("llama"), small_tokenizer, examples, "exact").tokens


def test_a_model_that_does_not_go_on_from_it_as_from_the_whole_reads_the_whole(
    tiny: Callable[..., Any], small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Scorer(tiny("llama"), small_tokenizer, EXAMPLES, "exact")
    right = SharedPrefix.caller

    def forgets(self: SharedPrefix, model: Any) -> Any:
        return lambda *, input_ids, **_: model(input_ids=input_ids)

    monkeypatch.setattr(SharedPrefix, "caller", forgets)
    assert Scorer(tiny("llama"), small_tokenizer, EXAMPLES, "exact", share_prefix=True).tokens == plain.tokens
    monkeypatch.setattr(SharedPrefix, "caller", right)
    assert Scorer(tiny("llama"), small_tokenizer, EXAMPLES, "exact", share_prefix=True).tokens < plain.tokens
