"""Drift is the divergence of the papers, exactly 0 for the identity, and felt where an edit touches only prompts."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from strop.anatomy import Anatomy, MatrixType, StreamSite, WeightSite
from strop.errors import UsageError
from strop.interventions import LowRankEdit, Positions, RankReduction, applied_interventions
from strop.scoring import DriftScorer, Resources, Texts, using

UP = WeightSite(1, MatrixType.UP)


@pytest.fixture
def texts() -> tuple[Texts, ...]:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randint(1, 300, shape, generator=generator) for shape in ((5, 24), (3, 30)))
    return Texts(one, 12), Texts(other, 20)


def by_hand(model: Any, texts: tuple[Texts, ...], edit: RankReduction) -> tuple[float, float, float]:
    """KL, share of changed first choices, ratio of perplexities, in float64 from whole passes."""
    anatomy = Anatomy.of(model)
    divergence, changed, ratio, count = 0.0, 0, 0.0, 0
    for chunk in texts:
        with torch.no_grad():
            base = model(chunk.ids).logits.double().log_softmax(-1)
            with applied_interventions(model, [edit], anatomy=anatomy):
                edited = model(chunk.ids).logits.double().log_softmax(-1)
        p, q = (found[:, chunk.prompt_tokens - 1 : -1] for found in (base, edited))
        wanted = chunk.ids[:, chunk.prompt_tokens :, None]
        divergence += float((p.exp() * (p - q)).sum())
        changed += int((p.argmax(-1) != q.argmax(-1)).sum())
        ratio += float((p.gather(-1, wanted) - q.gather(-1, wanted)).sum())
        count += wanted.numel()
    return divergence / count, changed / count, math.exp(ratio / count)


@pytest.mark.parametrize("lowest", [0, 1])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gptj", "gemma2"])
def test_it_is_the_divergence_of_whole_passes_by_hand(
    tiny: Callable[..., Any], texts: tuple[Texts, ...], family: str, lowest: int
) -> None:
    model = tiny(family)
    anatomy = Anatomy.of(model)
    edit = RankReduction(UP, 0.1)
    scorer = DriftScorer(model, texts, anatomy=anatomy, lowest=lowest)
    with applied_interventions(model, [edit], anatomy=anatomy):
        found = scorer.read()
    expected = by_hand(model, texts, edit)
    assert (found.kl, found.changed, found.perplexity_ratio) == pytest.approx(expected, rel=2e-3, abs=1e-6)
    assert found.kl > 0
    assert (found.texts, found.tokens, found.source) == (8, 5 * 12 + 3 * 10, "base")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gptj"])
def test_of_the_identity_it_is_exactly_nothing_and_two_readings_are_the_same_bytes(
    tiny: Callable[..., Any], texts: tuple[Texts, ...], family: str, dtype: torch.dtype
) -> None:
    model = tiny(family).to(dtype)
    anatomy = Anatomy.of(model)
    for lowest in (0, 2):
        scorer = DriftScorer(model, texts, anatomy=anatomy, lowest=lowest)
        assert scorer.read().identical
        assert scorer.read_unedited() == scorer.read()
        with applied_interventions(model, [RankReduction(WeightSite(2, MatrixType.DOWN), 0.1)], anatomy=anatomy):
            assert scorer.read() == scorer.read()
            assert not scorer.read().identical
            assert scorer.read_unedited().identical
        assert scorer.read().identical


@pytest.mark.parametrize("cut", [0.5, 0.95])
def test_a_model_in_bfloat16_is_measured_in_float32(
    cut: float, tiny: Callable[..., Any], texts: tuple[Texts, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits rounded to bfloat16 would differ by more than a small edit changes them."""
    monkeypatch.setattr("strop.scoring.drift.HEAD_ROWS", 100)
    model = tiny("llama").to(torch.bfloat16)
    anatomy, edit = Anatomy.of(model), RankReduction(UP, cut)

    def log_probabilities(ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            left = model.model(ids).last_hidden_state.double()
        return (left @ model.lm_head.weight.detach().double().T).log_softmax(-1)

    scorer = DriftScorer(model, texts, anatomy=anatomy)
    base = [log_probabilities(chunk.ids) for chunk in texts]
    with applied_interventions(model, [edit], anatomy=anatomy):
        found = scorer.read()
        edited = [log_probabilities(chunk.ids) for chunk in texts]
    expected = sum(
        float((p.exp() * (p - q))[:, chunk.prompt_tokens - 1 : -1].sum())
        for p, q, chunk in zip(base, edited, texts, strict=True)
    )
    assert found.kl == pytest.approx(expected / found.tokens, rel=1e-3)


@pytest.mark.parametrize("positions", ["f2", "l1", "prompt"])
def test_an_edit_of_prompt_positions_alone_is_felt(
    tiny: Callable[..., Any], texts: tuple[Texts, ...], positions: str
) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    edit = LowRankEdit(StreamSite(1), "loreft", rank=4, positions=Positions.parse(positions))
    tensors = edit.initial_tensors((32, 32), init="paper", generator=torch.Generator().manual_seed(0))
    scorer = DriftScorer(model, texts, anatomy=anatomy, lowest=1)
    with applied_interventions(model, [edit], anatomy=anatomy, tensors=[tensors]):
        assert scorer.read().kl > 1e-6
    assert scorer.read().identical


def test_the_size_of_batches_changes_no_figure_but_by_rounding(
    tiny: Callable[..., Any], texts: tuple[Texts, ...]
) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    found = []
    for resources in (Resources(), Resources(batch_tokens=40, scored_positions=7), Resources(state_bytes=1)):
        with using(resources):
            scorer = DriftScorer(model, texts, anatomy=anatomy, lowest=1)
            with applied_interventions(model, [RankReduction(UP, 0.1)], anatomy=anatomy):
                found.append(scorer.read())
    for other in found[1:]:
        assert (other.kl, other.perplexity_ratio) == pytest.approx((found[0].kl, found[0].perplexity_ratio), rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_measures_what_a_cpu_measures(tiny: Callable[..., Any], texts: tuple[Texts, ...]) -> None:
    found = []
    for device in ("cpu", "cuda"):
        model = tiny("llama").to(device)
        anatomy = Anatomy.of(model)
        scorer = DriftScorer(model, texts, anatomy=anatomy)
        with applied_interventions(model, [RankReduction(UP, 0.1)], anatomy=anatomy):
            found.append(scorer.read())
    assert found[1].kl == pytest.approx(found[0].kl, rel=0.01)
    assert found[1].perplexity_ratio == pytest.approx(found[0].perplexity_ratio, rel=0.01)


def test_a_model_that_predicts_nothing_has_no_drift(
    tiny_classifier: Callable[..., Any], texts: tuple[Texts, ...]
) -> None:
    model = tiny_classifier("llama")
    with pytest.raises(UsageError, match="does not predict the next token, and drift is measured on that"):
        DriftScorer(model, texts, anatomy=Anatomy.of(model))


def test_an_edit_that_breaks_the_model_has_no_finite_drift(tiny: Callable[..., Any], texts: tuple[Texts, ...]) -> None:
    model = tiny("llama")
    scorer = DriftScorer(model, texts, anatomy=Anatomy.of(model))
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    assert not scorer.read().identical
    assert math.isnan(scorer.read().kl)
