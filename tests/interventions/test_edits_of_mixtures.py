"""Every edit of weights and of states on mixtures of experts and on state-space models, against raw tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.mixtures import FAMILIES, make_described
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from strop.anatomy import Anatomy, MatrixType, Stream, StreamSite, WeightSite, hidden_states_entering, logits_at
from strop.errors import AnatomyError, InterventionError, SiteError
from strop.export import bake
from strop.interventions import (
    LowRankEdit,
    OutputBias,
    Positions,
    RankReduction,
    SingularValuePruning,
    SpectrumScaling,
    applied_interventions,
    attach_interventions,
)
from strop.interventions.prompts import prompt_lengths
from strop.recipe import Recipe, applied

T = MatrixType
IDS = torch.arange(1, 33)[None]
EDITED = {
    "mixtral": [WeightSite(1, T.UP, expert=0), WeightSite(0, T.DOWN, expert=2), WeightSite(1, T.GATE, expert=1)],
    "gpt_oss": [WeightSite(1, T.UP, expert=0), WeightSite(0, T.DOWN, expert=2), WeightSite(1, T.GATE, expert=1)],
    "granitemoe": [WeightSite(1, T.UP, expert=0), WeightSite(0, T.DOWN, expert=2), WeightSite(1, T.GATE, expert=1)],
    "deepseek_v3": [WeightSite(1, T.SHARED_UP), WeightSite(0, T.KEY_VALUE_UP), WeightSite(1, T.DOWN, expert=3)],
    "mamba": [WeightSite(1, T.MIXER_IN), WeightSite(0, T.MIXER_SELECT), WeightSite(1, T.MIXER_OUT)],
    "falcon_h1": [WeightSite(1, T.MIXER_IN), WeightSite(0, T.UP), WeightSite(1, T.MIXER_OUT)],
}


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=ids, use_cache=False).logits
    return found


@pytest.mark.parametrize("name", EDITED)
def test_three_edits_of_weights_are_those_of_raw_tensors_and_are_recorded_baked_and_taken_back(
    name: str, tmp_path: Path
) -> None:
    model, family = make_described(name), FAMILIES[name]
    anatomy = Anatomy.of(model, family=family)
    before, plain = {own: tensor.clone() for own, tensor in model.state_dict().items()}, logits(model)
    reduced, pruned, scaled = EDITED[name]
    expected = {}
    for site in EDITED[name]:
        u, s, vh = torch.linalg.svd(anatomy.read_weight(model, site).double(), full_matrices=False)
        rank = len(s)
        factor = {
            reduced: torch.arange(rank) < int(0.25 * rank),
            pruned: ~torch.isin(torch.arange(rank), torch.tensor([0, 3])),
            scaled: torch.linspace(0.5, 1.5, rank),
        }[site]
        expected[site] = (u * (s * factor)) @ vh
    count = min(expected[scaled].shape)
    edits = [RankReduction(reduced, 0.25), SingularValuePruning(pruned, (0, 3)), SpectrumScaling(scaled)]
    tensors = [{}, {}, {"change": torch.linspace(-0.5, 0.5, count)}]
    recipe = Recipe.of(model, edits, tensors=tensors, family=family)
    recipe.save(tmp_path / "recipe")
    assert Recipe.load(tmp_path / "recipe") == recipe
    with applied(model, Recipe.load(tmp_path / "recipe"), family=family):
        edited = logits(model)
        for site in EDITED[name]:
            torch.testing.assert_close(anatomy.read_weight(model, site), expected[site].float(), atol=1e-5, rtol=1e-4)
    assert (edited - plain).abs().max() > 1e-3
    assert all(torch.equal(tensor, before[own]) for own, tensor in model.state_dict().items())
    bake(model, recipe, tmp_path / "baked", family=family)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(loaded), edited, atol=1e-5, rtol=1e-5)


def edit_of_block(layer: int) -> tuple[LowRankEdit, dict[str, Tensor]]:
    edit = LowRankEdit(StreamSite(layer), "loreft", rank=4, positions=Positions.parse("l2"))
    return edit, edit.initial_tensors(32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "mamba", "mamba2", "falcon_h1"])
def test_an_edit_of_states_reaches_the_same_tokens_beside_padding_and_from_a_kept_prefix(name: str) -> None:
    model, anatomy = make_described(name), Anatomy.of(make_described(name), family=FAMILIES[name])
    edit, tensors = edit_of_block(0)
    tensors = {own: tensor + 0.5 for own, tensor in tensors.items()}
    short, padded = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[5, 6, 7, 8, 9, 0, 0], [3, 4, 5, 6, 7, 8, 9]])
    plain = logits(model, short)
    with applied_interventions(model, [edit], anatomy=anatomy, tensors=[tensors]), torch.no_grad():
        with prompt_lengths(torch.tensor([5])):
            alone = logits(model, short)
        with prompt_lengths(torch.tensor([5, 7])):
            together = model(input_ids=padded, use_cache=False).logits
            state = hidden_states_entering(model, anatomy, padded, layer=1)
            rows, columns = torch.tensor([0, 1]), torch.tensor([4, 6])
            resumed = logits_at(model, anatomy, padded, rows, columns, start=1, state=state)
    assert (alone - plain)[0, :3].abs().max() < 1e-5  # only the last two tokens are edited
    assert (alone - plain)[0, 3:].abs().max() > 1e-2
    torch.testing.assert_close(together[0, :5], alone[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(resumed, together[rows, columns], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["mamba", "falcon_h1", "mixtral"])
def test_an_edit_of_the_prompts_last_tokens_is_the_same_with_the_states_that_generation_keeps(name: str) -> None:
    model, anatomy = make_described(name), Anatomy.of(make_described(name), family=FAMILIES[name])
    edit, tensors = edit_of_block(1)
    tensors = {own: tensor + 0.5 for own, tensor in tensors.items()}
    prompt, settings = torch.tensor([[5, 6, 7, 8, 9]]), {"max_new_tokens": 4, "do_sample": False}
    with applied_interventions(model, [edit], anatomy=anatomy, tensors=[tensors]), torch.no_grad():
        kept, anew = (model.generate(prompt, use_cache=use, **settings) for use in (True, False))
    assert torch.equal(kept, anew)


def test_a_recurrent_state_does_not_say_its_length_and_tokens_are_counted_all_the_same() -> None:
    model, anatomy = make_described("mamba"), Anatomy.of(make_described("mamba"), family=FAMILIES["mamba"])
    edit, tensors = edit_of_block(1)
    tensors = {own: tensor + 0.5 for own, tensor in tensors.items()}
    ids, padded = torch.tensor([[5, 6, 7, 8, 9, 10, 11]]), torch.tensor([[0, 0, 7, 8, 9], [3, 4, 5, 6, 7]])
    settings = {"max_new_tokens": 4, "do_sample": False}
    before = model(input_ids=ids[:, :4], use_cache=True).cache_params
    with applied_interventions(model, [edit], anatomy=anatomy, tensors=[tensors]), torch.no_grad():
        with prompt_lengths([6]):
            whole = model(input_ids=ids, use_cache=False).logits
            cache = DynamicCache(config=model.config)
            parts = (ids[:, :4], ids[:, 4:5], ids[:, 5:6], ids[:, 6:])
            steps = [model(input_ids=part, cache_params=cache, use_cache=True).logits for part in parts]
            with pytest.raises(
                InterventionError, match=r"holds cannot be known, .* pass a new one, DynamicCache\(config"
            ):
                model(input_ids=ids[:, 4:5], cache_params=before)
        alone = model.generate(padded[:1, 2:], **settings)
        together = model.generate(padded, attention_mask=(padded != 0).long(), **settings)
        beams = [model.generate(padded[1:], num_beams=2, use_cache=use, **settings) for use in (True, False)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-4, rtol=1e-4)
    assert torch.equal(together[0, 5:], alone[0, 3:])
    assert torch.equal(*beams)


def test_a_spectrum_of_an_expert_or_of_what_is_never_called_cannot_learn_and_says_what_can() -> None:
    model, mamba = make_described("mixtral"), make_described("mamba")
    complaint = (
        r"layer 1 down expert 2: what goes in and out of one expert cannot be seen, for model\.layers\.1\.mlp\.experts "
        r"computes it inside from its parameter down_proj; choose other matrices, or what reads the weights alone"
    )
    edit = SpectrumScaling(WeightSite(1, T.DOWN, expert=2))
    anatomy = Anatomy.of(model, family=FAMILIES["mixtral"])
    with pytest.raises(AnatomyError, match=complaint):
        attach_interventions(model, [edit], anatomy=anatomy, tensors=[edit.initial_tensors((32, 48))], trainable=True)
    bias = OutputBias(edit.site)
    with pytest.raises(AnatomyError, match="one expert cannot be seen"):
        attach_interventions(model, [bias], anatomy=anatomy, tensors=[{"bias": torch.ones(32)}])
    step = SpectrumScaling(WeightSite(0, T.MIXER_STEP))
    with pytest.raises(
        AnatomyError,
        match=r"the block calls backbone\.layers\.0\.mixer\.dt_proj for more than its tokens, or reads its weight",
    ):
        attach_interventions(
            mamba,
            [step],
            anatomy=Anatomy.of(mamba, family=FAMILIES["mamba"]),
            tensors=[step.initial_tensors((64, 3))],
            trainable=True,
        )


@pytest.mark.parametrize("name", ["mamba", "falcon_h1", "deepseek_v3"])
def test_the_spectra_of_linear_modules_learn_as_anywhere(name: str) -> None:
    model, family = make_described(name), FAMILIES[name]
    anatomy = Anatomy.of(model, family=family)
    sites = [site for site in anatomy.sites(layers=[1]) if anatomy.spelling(site).sees_every_token]
    edits = [SpectrumScaling(site) for site in sites]
    changes = [{"change": torch.linspace(-0.3, 0.3, min(anatomy.read_weight(model, site).shape))} for site in sites]
    with applied_interventions(model, edits, anatomy=anatomy, tensors=changes):
        in_place = logits(model)
    learning = attach_interventions(model, edits, anatomy=anatomy, tensors=changes, trainable=True)
    found = model(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(found, in_place, atol=1e-4, rtol=1e-4)
    gradients = torch.autograd.grad(
        found.logsumexp(-1).sum(), [module.learned["change"] for module in learning.modules]
    )
    assert all(bool(gradient.any()) for gradient in gradients)
    learning.detach()


def test_streams_that_no_one_matrix_makes_are_refused_by_name() -> None:
    mamba = make_described("mamba")
    anatomy = Anatomy.of(mamba, family=FAMILIES["mamba"])
    with pytest.raises(SiteError, match="layer 0 output: a mamba block has no output matrix; it has mixer_in"):
        anatomy.stream_module(mamba, StreamSite(0, Stream.ATTENTION))
