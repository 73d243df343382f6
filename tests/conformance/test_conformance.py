"""What every architecture must do: a new one joins by a line in `models.py`."""

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.conformance.models import MEMBERS
from tests.conformance.suite import (
    IDS,
    PROMPTS,
    ByHand,
    Subject,
    batch_of,
    member_named,
    reduced,
    subject_of,
)
from tests.fixtures.every_method import EDITS, scales
from torch import Tensor, nn

from strop.anatomy import Anatomy, Stream, StreamSite, WeightSite, hidden_states_entering, logits_at
from strop.errors import InterventionError, SiteError, StropError, UnknownArchitectureError
from strop.export import bake
from strop.export.biases import room_for_biases
from strop.interventions import (
    LowRankEdit,
    OutputBias,
    Positions,
    RankReduction,
    SingularValuePruning,
    SpectrumScaling,
    applied_interventions,
    attach_interventions,
    prompt_lengths,
)
from strop.linalg import decompose
from strop.recipe import Recipe, applied
from strop.scoring import Batch
from strop.searching import measure_effects

NEAR = {"atol": 2e-4, "rtol": 2e-4}
ANSWERS = ((15, 33, 21), (44, 17))
POSITIONS, NEW = "f1+l2", 3
SHARE = 0.25


@pytest.fixture
def subject(name: str) -> Iterator[Subject]:
    try:
        found = subject_of(name)
    except UnknownArchitectureError:
        pytest.skip("not read yet")
    yield found
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in found.model.modules())


def edited_columns(length: int) -> list[int]:
    """Which tokens of a prompt `f1+l2` names."""
    return [0, length - 2, length - 1]


@pytest.mark.parametrize("name", [member.name for member in MEMBERS])
class TestArchitecture:
    def test_every_matrix_is_where_raw_tensors_hold_it_and_is_written_back_bit_for_bit(self, subject: Subject) -> None:
        anatomy, model = subject.anatomy, subject.model
        assert subject.sites
        taken: dict[str, Tensor] = {}
        for site in subject.sites:
            parameter, place = anatomy.parameter(model, site), subject.place(site)
            raw = torch.from_numpy(place.of(parameter)).float()
            assert torch.equal(anatomy.read_weight(model, site), raw), site
            scratch = parameter.detach().clone()
            anatomy.write_matrix(scratch, site, raw * 2)
            expected = parameter.detach().clone()
            expected.view(-1)[torch.from_numpy(place.index.copy())] *= 2
            assert torch.equal(scratch, expected), site
            anatomy.write_matrix(scratch, site, raw)
            assert torch.equal(scratch, parameter), site
            tally = taken.setdefault(place.name, torch.zeros(parameter.numel()))
            tally[torch.from_numpy(place.index.reshape(-1))] += 1
        assert all(bool((tally <= subject.blocks_that_share).all()) for tally in taken.values())

    def test_a_rank_reduction_is_that_of_the_raw_matrix(self, subject: Subject) -> None:
        model, sites = subject.model, subject.one_of_each()
        before = subject.state()
        expected = {name: tensor.clone() for name, tensor in before.items()}
        for site in sites:
            place = subject.place(site)
            matrix = place.of(before[place.name])
            kept = reduced(matrix, int(SHARE * min(matrix.shape)))
            expected[place.name].view(-1)[torch.from_numpy(place.index.copy())] = torch.from_numpy(kept).float()
        with applied_interventions(
            model, [RankReduction(site, rank_fraction=SHARE) for site in sites], anatomy=subject.anatomy
        ):
            after = subject.state()
        changed = {subject.place(site).name for site in sites}
        for name, tensor in after.items():
            if name in changed:
                torch.testing.assert_close(tensor, expected[name], atol=2e-5, rtol=0)
                assert not torch.equal(tensor, before[name])
        assert all(torch.equal(tensor, before[name]) for name, tensor in subject.state().items())

    def test_effects_are_autograds(self, subject: Subject) -> None:
        model, sites = subject.model, subject.one_of_each()
        texts = [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
        places = [(row, len(PROMPTS[row]) - 1 + step) for row in range(2) for step in range(len(ANSWERS[row]))]
        batch = Batch(
            input_ids=batch_of([text[:-1] for text in texts], "right")["input_ids"],
            rows=torch.tensor([row for row, _ in places]),
            columns=torch.tensor([column for _, column in places]),
            targets=torch.tensor([texts[row][column + 1] for row, column in places]),
            sequences=tuple(row for row, _ in places),
            prompt_lengths=torch.tensor([len(prompt) for prompt in PROMPTS]),
        )
        sample: Any = SimpleNamespace(model=model, anatomy=subject.anatomy, batches=[batch], example_count=2)
        found = measure_effects(sample, sites, decompose=decompose)
        loss = torch.zeros(())
        for text, prompt in zip(texts, PROMPTS, strict=True):
            log_p = subject.call(torch.tensor([text])).logits[0].float().log_softmax(-1)
            terms = [log_p[column, text[column + 1]] for column in range(len(prompt) - 1, len(text) - 1)]
            loss = loss - sum(terms) / len(terms)
        parameters = {place.name: model.get_parameter(place.name) for place in map(subject.place, sites)}
        gradients = dict(zip(parameters, torch.autograd.grad(loss / 2, list(parameters.values())), strict=True))
        for site in sites:
            place = subject.place(site)
            u, s, vh = np.linalg.svd(place.of(parameters[place.name]), full_matrices=False)
            expected = -s * np.einsum("or,oi,ri->r", u, place.of(gradients[place.name]), vh)
            scale = np.abs(expected).max()
            assert scale > 0, site
            np.testing.assert_allclose(found[site].loss_change, expected, atol=2e-3 * scale, err_msg=str(site))

    def test_starting_from_any_block_is_the_whole_pass(self, subject: Subject) -> None:
        model, anatomy = subject.model, subject.anatomy
        rows, columns = torch.tensor([0, 0, 1]), torch.tensor([2, 5, 4])
        expected = subject.logits()[rows, columns]
        state: Tensor | None = None
        with torch.no_grad():
            for layer in range(anatomy.layer_count + 1):
                state = hidden_states_entering(model, anatomy, IDS, layer=layer, start=max(layer - 1, 0), state=state)
                found = logits_at(model, anatomy, IDS, rows, columns, start=layer, state=state)
                torch.testing.assert_close(found, expected, **NEAR)
            other = logits_at(model, anatomy, IDS, rows, columns, start=1, state=torch.randn_like(state))
        assert not torch.allclose(other, expected, atol=1e-3)

    @pytest.fixture
    def edit(self, subject: Subject) -> Iterator[ByHand]:
        """The same LoReFT edit of the second block's output, by Strop and by hand; Strop's is put on."""
        stack = subject.stacks[0]
        entry = LowRankEdit(StreamSite(1, stack=stack), "loreft", rank=4, positions=Positions.parse(POSITIONS))
        size = subject.anatomy.stacks[stack].hidden_size
        tensors = entry.initial_tensors(size, init="paper", generator=torch.Generator().manual_seed(0))
        self.put_on = lambda: attach_interventions(subject.model, [entry], anatomy=subject.anatomy, tensors=[tensors])
        yield ByHand(subject.anatomy.blocks(subject.model, stack)[1], tensors)

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_padding_on_either_side_leaves_the_edited_tokens_what_they_are(
        self, subject: Subject, edit: ByHand, side: str
    ) -> None:
        texts = [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
        expected = [
            edit.run(edited_columns(len(prompt)), lambda text=text: subject.logits(torch.tensor([text]))[0])
            for prompt, text in zip(PROMPTS, texts, strict=True)
        ]
        batch = batch_of(texts, side)
        if not subject.takes("position_ids"):
            del batch["position_ids"]
        attachment = self.put_on()
        try:
            with torch.no_grad(), prompt_lengths([len(prompt) for prompt in PROMPTS]):
                found = subject.call(batch.pop("input_ids"), **batch).logits
        finally:
            attachment.detach()
        for row, text in enumerate(texts):
            own = found[row, -len(text) :] if side == "left" else found[row, : len(text)]
            torch.testing.assert_close(own, expected[row], **NEAR)
            assert not torch.allclose(expected[row], subject.logits(torch.tensor([text]))[0], atol=1e-3)

    def test_what_is_generated_is_what_edits_by_hand_generate(self, subject: Subject, edit: ByHand) -> None:
        model = subject.model
        expected: list[list[int]] = []
        logits: list[list[Tensor]] = []
        for prompt in PROMPTS:
            ids, steps = list(prompt), []
            for _ in range(NEW):
                said = edit.run(edited_columns(len(prompt)), lambda: subject.logits(torch.tensor([ids]))[0, -1])
                steps.append(said)
                ids.append(int(said.argmax()))
            expected.append(ids[len(prompt) :])
            logits.append(steps)
        batch = batch_of(PROMPTS, "left")
        del batch["position_ids"]
        settings = {
            "max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0,
            "return_dict_in_generate": True,
        }  # fmt: skip
        attachment = self.put_on()
        try:
            greedy = model.generate(**batch, **settings, output_logits=True)
            beams = model.generate(**batch, **settings, num_beams=2, length_penalty=0.0, output_scores=True)
        finally:
            attachment.detach()
        assert greedy.sequences[:, -NEW:].tolist() == expected
        torch.testing.assert_close(
            torch.stack(greedy.logits, 1), torch.stack([torch.stack(steps) for steps in logits]), **NEAR
        )
        for row, prompt in enumerate(PROMPTS):
            chosen = beams.sequences[row, -NEW:].tolist()
            ids = torch.tensor([[*prompt, *chosen]])
            log_p = edit.run(edited_columns(len(prompt)), lambda ids=ids: subject.logits(ids)[0]).log_softmax(-1)
            total = sum(log_p[len(prompt) - 1 + step, token] for step, token in enumerate(chosen))
            torch.testing.assert_close(beams.sequences_scores[row], total, **NEAR)

    def test_a_recipe_is_read_back_and_baked_into_a_checkpoint_with_the_same_logits(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        model, anatomy = subject.model, subject.anatomy
        edits, tensors = [], []
        for index, site in enumerate(subject.one_of_each()):
            edit = (RankReduction(site, SHARE), SingularValuePruning(site, (0, 2)), SpectrumScaling(site))[index % 3]
            edits.append(edit)
            tensors.append(scales(edit, min(anatomy.read_weight(model, site).shape)))
        for site in self.bakeable(subject):
            edits.append(OutputBias(site))
            size = anatomy.read_weight(model, site).shape[0]
            tensors.append({"bias": torch.randn(size, generator=torch.Generator().manual_seed(1))})
        recipe = Recipe.of(model, edits, tensors=tensors)
        recipe.save(tmp_path / "recipe")
        assert Recipe.load(tmp_path / "recipe") == recipe
        before = subject.logits()
        with applied(model, Recipe.load(tmp_path / "recipe")):
            expected = subject.logits()
        assert not torch.allclose(expected, before, atol=1e-3)
        assert torch.equal(subject.logits(), before)
        bake(model, recipe, tmp_path / "baked")
        loaded, found = type(model).from_pretrained(tmp_path / "baked", output_loading_info=True)
        assert not any(found.values()), found
        baked = Subject(subject.member, loaded.eval(), anatomy)
        assert torch.equal(baked.logits(), expected)

    def bakeable(self, subject: Subject) -> list[WeightSite]:
        """One matrix of each type whose bias a checkpoint of this architecture can hold."""
        found = []
        for site in subject.one_of_each():
            size = subject.anatomy.read_weight(subject.model, site).shape[0]
            try:
                recipe = Recipe.of(subject.model, [OutputBias(site)], tensors=[{"bias": torch.zeros(size)}])
                room_for_biases(subject.model, subject.anatomy, recipe)
            except (InterventionError, StropError):
                continue
            found.append(site)
        return found

    def test_gradients_are_the_same_where_blocks_are_recomputed(self, subject: Subject) -> None:
        stack = subject.stacks[0]
        site = next(site for site in subject.sites if site.layer == 1 and site.expert is None and site.stack == stack)
        entries = [
            SpectrumScaling(site),
            LowRankEdit(StreamSite(1, stack=stack), "loreft", rank=4, positions=Positions(reach="all")),
        ]
        size = subject.anatomy.stacks[stack].hidden_size
        shape = subject.anatomy.read_weight(subject.model, site).shape
        generator = torch.Generator().manual_seed(0)
        tensors = [
            entries[0].initial_tensors((shape[0], shape[1])),
            entries[1].initial_tensors(size, init="paper", generator=generator),
        ]
        model = subject.model
        attachment = attach_interventions(model, entries, anatomy=subject.anatomy, tensors=tensors, trainable=True)

        def gradients() -> list[Tensor]:
            torch.manual_seed(0)
            learning = [parameter for module in attachment.modules for parameter in module.parameters()]
            loss = subject.call().logits.float().logsumexp(-1).sum()
            return list(torch.autograd.grad(loss, learning))

        try:
            model.train()
            expected = gradients()
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            found = gradients()
        finally:
            model.gradient_checkpointing_disable()
            model.eval()
            attachment.detach()
        assert all(bool(gradient.any()) for gradient in expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)

    def test_every_method_comes_off_bit_for_bit_in_bfloat16(self, subject: Subject) -> None:
        model, anatomy = copy.deepcopy(subject.model).bfloat16(), subject.anatomy
        own = Subject(subject.member, model, anatomy)
        before, plain = own.state(), own.logits()
        sites = own.one_of_each()
        for index, make in enumerate(EDITS.values()):
            entry = make(sites[index % len(sites)])
            outputs, inputs = anatomy.read_weight(model, entry.site).shape
            tensors = scales(entry, min(outputs, inputs))
            if getattr(entry, "bias", "none") != "none":
                shape = {"mean": (outputs,), "position": (IDS.shape[1], outputs)}[entry.bias]
                tensors = {"bias": torch.randn(shape, generator=torch.Generator().manual_seed(0))}
            with applied_interventions(model, [entry], anatomy=anatomy, tensors=[tensors]):
                assert not torch.equal(own.logits(), plain), entry
            assert all(torch.equal(tensor, before[name]) for name, tensor in own.state().items()), entry
        assert torch.equal(own.logits(), plain)

    def test_hidden_states_are_edited_in_every_stream_there_is(self, subject: Subject) -> None:
        model, anatomy = subject.model, subject.anatomy
        plain = subject.logits()
        for stack in subject.stacks:
            for stream in Stream:
                site = StreamSite(1, stream, stack=stack)
                entry = LowRankEdit(site, "lobireft", rank=4, positions=Positions(reach="all"))
                size = anatomy.stacks[stack].hidden_size
                tensors = entry.initial_tensors(size, init="paper", generator=torch.Generator().manual_seed(0))
                try:
                    holder: nn.Module = anatomy.stream_module(model, site)
                except SiteError:
                    continue
                with applied_interventions(model, [entry], anatomy=anatomy, tensors=[tensors]):
                    assert not torch.allclose(subject.logits(), plain, atol=1e-4), (stack, stream, holder)
        assert torch.equal(subject.logits(), plain)


def test_every_member_has_a_name_of_its_own_and_logits_that_are_numbers() -> None:
    assert len({member.name for member in MEMBERS}) == len(MEMBERS)
    assert member_named("falcon-grouped").model_type == "falcon"
    assert Anatomy is not None
