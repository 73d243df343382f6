"""Effects where a module is called several times, or for more than its tokens: an example's are one sum, and no padding counts."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tests.conformance.models import built
from tests.conformance.scored import scored_batch
from tests.conformance.suite import Subject, subject_of
from torch import Tensor
from transformers import AlbertForSequenceClassification

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.linalg import decompose
from strop.scoring.label_batches import LabelBatch
from strop.searching import EffectPlan, measure_effects
from strop.searching.label_effects import measure_label_effects

T = MatrixType


def sample_of(subject: Subject) -> Any:
    batch, _ = scored_batch(subject)
    return SimpleNamespace(model=subject.model, anatomy=subject.anatomy, batches=[batch], example_count=2)


def effects_by_example(subject: Subject, site: WeightSite) -> Tensor:
    """e_n = −σ u G_n v of each example's own loss, (examples, rank), by autograd on the parameter."""
    batch, texts = scored_batch(subject)
    parameter = subject.anatomy.parameter(subject.model, site)
    found = decompose(subject.anatomy.read_weight(subject.model, site))
    rows = []
    for row, text in enumerate(texts):
        own = batch.rows == row
        loss = -text().float().log_softmax(-1)[batch.columns[own], batch.targets[own]].mean()
        (gradient,) = torch.autograd.grad(loss, parameter)
        at_matrix = subject.anatomy.matrix_in(gradient, site)
        rows.append(-found.singular_values * torch.einsum("or,oi,ri->r", found.u, at_matrix, found.vh))
    return torch.stack(rows)


def test_squares_of_a_shared_block_are_of_an_examples_effects_over_all_its_calls() -> None:
    subject, site = subject_of("albert"), WeightSite(0, T.UP)
    assert subject.anatomy.family.calls_per_block > 1
    found = measure_effects(sample_of(subject), [site], decompose=decompose, plan=EffectPlan(reduction="squares"))
    expected = effects_by_example(subject, site).double().square().mean(0)
    np.testing.assert_allclose(found[site].score, expected, rtol=2e-3, atol=1e-9 + 1e-3 * float(expected.max()))


def test_what_is_asked_by_example_counts_the_tokens_behind_the_masks_as_well() -> None:
    subject = subject_of("deberta-v2")
    shared, up = WeightSite(0, T.QUERY), WeightSite(0, T.UP)
    assert not subject.anatomy.spelling(shared).called  # its queries serve relative positions too
    plan = EffectPlan(reduction="squares")
    together = measure_effects(sample_of(subject), [shared, up], decompose=decompose, plan=plan)
    for site in (shared, up):
        expected = effects_by_example(subject, site).double().square().mean(0)
        np.testing.assert_allclose(together[site].score, expected, rtol=2e-3, atol=1e-9 + 1e-3 * float(expected.max()))


def test_a_classifiers_shared_block_is_asked_at_every_call() -> None:
    torch.manual_seed(0)
    model = AlbertForSequenceClassification(built("albert").config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)
    anatomy, site = Anatomy.of(model), WeightSite(0, T.UP)
    inputs = {
        "input_ids": torch.tensor([[11, 23, 35, 47], [52, 8, 30, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    targets = torch.tensor([1, 0])
    batch = LabelBatch(lambda: inputs, inputs["attention_mask"].bool(), targets, (0, 1))
    scorer: Any = SimpleNamespace(
        model=model, anatomy=anatomy, batches=[batch], example_count=2, labels=SimpleNamespace(names=("a", "b"))
    )
    own = decompose(anatomy.read_weight(model, site))
    squares = EffectPlan(reduction="squares")
    found = measure_label_effects(scorer, [site], decompositions=lambda _: own, plan=squares)
    by_example = []
    for row in range(2):
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits[row : row + 1], targets[row : row + 1])
        (gradient,) = torch.autograd.grad(loss, anatomy.parameter(model, site))
        by_example.append(-own.singular_values * torch.einsum("or,oi,ri->r", own.u, gradient, own.vh))
    expected = torch.stack(by_example).double()
    scale = float(expected.abs().max())
    np.testing.assert_allclose(found[site].loss_change, expected.mean(0), atol=2e-3 * scale)
    np.testing.assert_allclose(found[site].score, expected.square().mean(0), atol=2e-3 * scale**2)
