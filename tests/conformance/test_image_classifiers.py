"""Classifiers of images of several architectures: read as they are, scored, guided by autograd's effects, edited and baked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.fixtures.images import LABELS, image_keys, image_rows, make_processor
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForImageClassification

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.checkpoints import head_parameters
from strop.linalg import decompose
from strop.scoring import ClassScorer
from strop.searching.label_effects import measure_label_effects
from strop.tasks import load_task

SIZES: Mapping[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32, "image_size": 8,
    "patch_size": 2, "num_channels": 3, "id2label": dict(enumerate(LABELS)),
    "label2id": {name: index for index, name in enumerate(LABELS)},
}  # fmt: skip
ARCHITECTURES: Mapping[str, str] = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "deit of two heads": "DeiTForImageClassificationWithTeacher",
    "beit": "BeitForImageClassification",
    "dinov2": "Dinov2ForImageClassification",
    "data2vec-vision": "Data2VecVisionForImageClassification",
    "vit_msn": "ViTMSNForImageClassification",
    "ijepa": "IJepaForImageClassification",
    "dinov2_with_registers": "Dinov2WithRegistersForImageClassification",
    "clip": "CLIPForImageClassification",
    "siglip": "SiglipForImageClassification",
}
IN_PARTS = ("clip", "siglip")
"""Model types whose config speaks of what looks at images in a part of its own."""
UP = WeightSite(1, MatrixType.UP)


def save_tiny(model_type: str, architecture: str, folder: Path) -> Path:
    """Save a tiny random classifier of images and its processor."""
    names = ("id2label", "label2id")
    seeing = {name: own for name, own in SIZES.items() if name not in names}
    inside = {"vision_config": seeing, "text_config": {"hidden_size": 8}, **{name: SIZES[name] for name in names}}
    config = AutoConfig.for_model(
        model_type, **(inside if model_type in IN_PARTS else SIZES), architectures=[architecture]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, architecture)(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    make_processor(channels=3).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_read_scored_guided_edited_and_baked(name: str, tmp_path: Path) -> None:
    folder = save_tiny(name.partition(" ")[0], ARCHITECTURES[name], tmp_path / "base")
    model, processor = strop.load_image_classifier(folder)
    assert type(model).__name__ == ARCHITECTURES[name]
    task, anatomy = load_task(image_keys(data=image_rows(12))), Anatomy.of(model)
    assert anatomy.reading is not None
    assert (len(anatomy.sites()), anatomy.hidden_size, anatomy.reading.obstacle) == (12, 16, "")
    assert all("classifier" in name or "pooler" in name for name in head_parameters(model))
    assert task.labels is not None
    scorer = ClassScorer(model, processor, task.examples("train"), task.labels, anatomy=anatomy)
    held = decompose(anatomy.read_weight(model, UP).clone())
    found = measure_label_effects(scorer, [UP], decompositions=lambda _: held)[UP]
    (batch,) = scorer.batches
    loss = cross_entropy(model(**batch.inputs).logits, batch.targets)
    gradient = torch.autograd.grad(loss, anatomy.parameter(model, UP))[0]
    expected = -held.singular_values * torch.einsum("oi,oj,ij->i", held.u, gradient, held.vh)
    torch.testing.assert_close(found.loss_change.float(), expected, atol=1e-5, rtol=2e-3)
    recipe = strop.Recipe.of(model, [strop.RankReduction(UP, 0.25)])
    strop.bake(folder, recipe, tmp_path / "baked")
    baked = AutoModelForImageClassification.from_pretrained(tmp_path / "baked").eval()
    with torch.no_grad(), strop.applied(model, recipe):
        torch.testing.assert_close(baked(**batch.inputs).logits, model(**batch.inputs).logits, atol=0, rtol=0)
    edit = strop.LowRankEdit(strop.StreamSite(1), "loreft", rank=2, positions=strop.Positions(last=1))
    drawn = edit.initial_tensors((16, 16), init="paper", generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), strop.applied(model, strop.Recipe.of(model, [edit], tensors=[drawn])):
        assert torch.isfinite(model(**batch.inputs).logits).all()
