"""A Vision Transformer on digits: how they are dealt, where its matrices are, and a small run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from examples.digits.__main__ import SMALL, VIT, deal_images, main, score
from transformers import ViTForImageClassification

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite


def test_every_image_is_dealt_once() -> None:
    dealt = deal_images(train=100, seed=0)
    assert [len(images.digits) for images in dealt] == [100, 565, 1132]
    rows = torch.cat([images.pixels.flatten(1) for images in dealt])
    assert len(rows.unique(dim=0)) == len(rows) == 1797  # the data set has no image twice
    assert (rows.min(), rows.max()) == (0, 1)


def test_a_small_run_reduces_a_matrix_the_model_reads_and_its_figures_can_be_had_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--small", "--out", str(tmp_path)])
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    accuracy = figures["test"]["accuracy"]
    assert f"| accuracy | {accuracy['base']:.3f} | {accuracy['edited']:.3f} |" in capsys.readouterr().out
    model = ViTForImageClassification.from_pretrained(tmp_path / "model").eval()
    test = deal_images(train=SMALL.train, seed=SMALL.seed)[2]
    assert accuracy["base"] == pytest.approx(float(score(model, test)[0].mean()))
    recipe = strop.Recipe.load(tmp_path / "recipe")
    (reduction,) = recipe.interventions
    assert str(reduction) == figures["choice"]
    with strop.applied(model, recipe, family=VIT):
        assert accuracy["edited"] == pytest.approx(float(score(model, test)[0].mean()))


def test_the_family_names_the_matrices_of_the_vision_transformer() -> None:
    config = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    model = ViTForImageClassification(
        ViTForImageClassification.config_class(image_size=8, patch_size=2, num_channels=1, num_labels=10, **config)
    ).eval()
    anatomy, down = Anatomy.of(model, family=VIT), WeightSite(1, MatrixType.DOWN)
    own = model.vit.layers[1].mlp.fc2.weight.detach().clone()
    assert torch.equal(anatomy.read_weight(model, down), own)
    u, s, vh = np.linalg.svd(own.double().numpy())
    recipe = strop.Recipe.of(model, [strop.RankReduction(down, rank_fraction=0.25)], family=VIT)
    with strop.applied(model, recipe, family=VIT):
        edited = model.vit.layers[1].mlp.fc2.weight.detach().numpy().copy()
    np.testing.assert_allclose(edited, (u[:, :4] * s[:4]) @ vh[:4], atol=1e-6)
    assert torch.equal(model.vit.layers[1].mlp.fc2.weight, own)
