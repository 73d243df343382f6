"""What every architecture must do: a new one joins by a line in `models.py`."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.conformance.models import MEMBERS, TRAITS
from tests.conformance.scored import scored_batch
from tests.conformance.suite import (
    FOUND,
    IDS,
    PROMPTS,
    TEXTS,
    ByHand,
    Subject,
    batch_of,
    reduced,
    subject_of,
)
from tests.fixtures.every_method import EDITS, factors, scales
from torch import Tensor

from strop.anatomy import Stack, Stream, StreamSite, WeightSite, hidden_states_entering, logits_at
from strop.anatomy.reading import read_model
from strop.errors import AnatomyError, SiteError, UsageError
from strop.export import bake
from strop.interventions import (
    Intervention,
    LowRankEdit,
    LowRankUpdate,
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
from strop.scoring.forms import form_of
from strop.searching import measure_effects

pytestmark = (
    pytest.mark.thorough
)  # a hundred architectures; the other tests ask the same of the few that are most in use

NEAR = {"atol": 2e-4, "rtol": 2e-4}
POSITIONS, NEW = "f1+l2", 3
SHARE = 0.25
NO_MASK: Any = SimpleNamespace(mask_token_id=None)
ASKED = {"matrices", "left alone", "from a block on", "streams", "biases"}
"""What is noted of every member, where the whole suite is run."""


@pytest.fixture
def subject(name: str) -> Iterator[Subject]:
    found = subject_of(name)
    found.note("group", found.member.group)
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
        taken: dict[str, dict[Any, int]] = {}
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
            others = taken.setdefault(place.name, {})
            others[site.layer, site.stack] = others.get((site.layer, site.stack), 0) + place.index.size
            assert others[site.layer, site.stack] <= parameter.numel(), site
        types = {
            stack: dict.fromkeys(site.matrix_type for site in subject.sites if site.stack == stack)
            for stack in subject.stacks
        }
        stacks = [(f"{stack}: " if stack else "") + " ".join(own) for stack, own in types.items()]
        subject.note("matrices", "; ".join(stacks))
        reading = read_model(model)
        assert not reading.obstacle
        subject.note("left alone", ", ".join(f"`{path}`" for path in reading.unnamed))

    def test_a_rank_reduction_is_that_of_the_raw_matrix(self, subject: Subject) -> None:
        model, sites = subject.model, subject.read_sites
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
        model, sites = subject.model, subject.read_sites
        if subject.member.head == "classes":
            with pytest.raises(UsageError, match=f"^{type(model).__name__} does not predict the next token"):
                form_of(model, subject.anatomy, NO_MASK, "exact")
            subject.note("effects", "no")
            return
        batch, texts = scored_batch(subject)
        sample: Any = SimpleNamespace(model=model, anatomy=subject.anatomy, batches=[batch], example_count=2)
        found = measure_effects(sample, sites, decompose=decompose)
        loss = torch.zeros(())
        for row, text in enumerate(texts):
            log_p = text().float().log_softmax(-1)
            own = batch.rows == row
            loss = loss - log_p[batch.columns[own], batch.targets[own]].mean()
        parameters = {place.name: model.get_parameter(place.name) for place in map(subject.place, sites)}
        gradients = dict(zip(parameters, torch.autograd.grad(loss / 2, list(parameters.values())), strict=True))
        for site in sites:
            place = subject.place(site)
            u, s, vh = np.linalg.svd(place.of(parameters[place.name]), full_matrices=False)
            expected = -s * np.einsum("or,oi,ri->r", u, place.of(gradients[place.name]), vh)
            scale = np.abs(expected).max()
            assert scale > 0 or site.expert is not None, site
            np.testing.assert_allclose(found[site].loss_change, expected, atol=2e-3 * scale + 1e-9, err_msg=str(site))
        subject.note("effects", "yes")

    def test_starting_from_any_block_is_the_whole_pass(self, subject: Subject) -> None:
        model, anatomy = subject.model, subject.anatomy
        if subject.cannot("runs whole"):
            assert not anatomy.family.resumes
            if anatomy.layer_count > 1:
                with pytest.raises(AnatomyError, match=r"blocks read more than what enters them.*run the whole model"):
                    logits_at(model, anatomy, IDS, IDS[:, 0], IDS[:, 0], start=1, state=torch.zeros(1))
            subject.note("from a block on", "no")
            return
        rows, columns = torch.tensor([0, 0, 1]), torch.tensor([2, 5, 4])
        entering: list[Tensor] = []
        handles = [
            block.register_forward_pre_hook(lambda _, arguments: entering.append(arguments[0]))
            for block in anatomy.blocks(model)
        ]
        whole = subject.logits()
        for handle in handles:
            handle.remove()
        state: Tensor | None = None
        reads = subject.member.head != "classes"
        with torch.no_grad():
            for layer in range(anatomy.layer_count + 1):
                state = hidden_states_entering(model, anatomy, IDS, layer=layer, start=max(layer - 1, 0), state=state)
                if layer < anatomy.layer_count:
                    torch.testing.assert_close(state, entering[layer], **NEAR)
                if reads:
                    found = logits_at(model, anatomy, IDS, rows, columns, start=layer, state=state)
                    torch.testing.assert_close(found, whole[rows, columns], **NEAR)
            if reads:
                other = logits_at(model, anatomy, IDS, rows, columns, start=1, state=torch.randn_like(state))
                assert not torch.allclose(other, whole[rows, columns], atol=1e-3)
        subject.note("from a block on", "yes")

    @pytest.fixture
    def edit(self, subject: Subject) -> ByHand:
        """A LoReFT edit of a block's output, by Strop and by hand; Strop's is put on with `put_on`."""
        stack, layer = subject.stacks[0], subject.layer
        entry = LowRankEdit(StreamSite(layer, stack=stack), "loreft", rank=4, positions=Positions.parse(POSITIONS))
        size = subject.anatomy.stacks[stack].hidden_size
        tensors = entry.initial_tensors(size, init="paper", generator=torch.Generator().manual_seed(0))
        self.put_on = lambda: attach_interventions(subject.model, [entry], anatomy=subject.anatomy, tensors=[tensors])
        return ByHand(subject.anatomy.blocks(subject.model, stack)[layer], tensors)

    def test_padding_on_either_side_leaves_the_edited_tokens_what_they_are(
        self, subject: Subject, edit: ByHand
    ) -> None:
        paired = subject.member.head == "seq2seq"
        texts = PROMPTS if paired else TEXTS
        decoded = {"decoder_input_ids": torch.tensor([[2, 15, 33]])} if paired else {}

        def alone(text: tuple[int, ...]) -> Tensor:
            return subject.logits(torch.tensor([text]), **decoded)[0]

        plain = [alone(text) for text in texts]
        expected = [
            edit.run(edited_columns(len(prompt)), lambda text=text: alone(text))
            for prompt, text in zip(PROMPTS, texts, strict=True)
        ]
        assert not any(torch.allclose(one, other, atol=1e-3) for one, other in zip(expected, plain, strict=True))

        def rows_of(side: str) -> list[Tensor]:
            batch = batch_of(texts, side) | {name: ids.expand(len(texts), -1) for name, ids in decoded.items()}
            if not subject.takes("position_ids") or subject.anatomy.family.positions_after_padding:
                del batch["position_ids"]
            with torch.no_grad(), prompt_lengths([len(prompt) for prompt in PROMPTS]):
                found = subject.call(batch.pop("input_ids"), **batch).logits
            if paired or subject.member.head == "classes":
                return list(found)
            return [
                own[-len(text) :] if side == "left" else own[: len(text)]
                for own, text in zip(found, texts, strict=True)
            ]

        for side in ("left", "right"):
            moved = not all(torch.allclose(one, other, **NEAR) for one, other in zip(rows_of(side), plain, strict=True))
            why = next(
                (
                    trait
                    for trait in (f"reads padding on the {side}", f"counts padding on the {side}")
                    if subject.cannot(trait)
                ),
                "",
            )
            assert moved == bool(why), side
            if moved:
                subject.note(f"not: padding on the {side}", TRAITS[why])
                continue
            attachment = self.put_on()
            try:
                found = rows_of(side)
            finally:
                attachment.detach()
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, msg=lambda text, side=side: f"{side}: {text}", **NEAR)

    def test_what_is_generated_is_what_edits_by_hand_generate(self, subject: Subject, edit: ByHand) -> None:
        if subject.member.head in ("masked", "classes"):
            with pytest.raises(UsageError, match=f"^{type(subject.model).__name__} .*score: generate"):
                form_of(subject.model, subject.anatomy, NO_MASK, "generate")
            subject.note("generates", "no")
            return
        together = not subject.cannot("reads padding on the left")
        for rows in [[0, 1]] if together else [[0], [1]]:
            self.generates([PROMPTS[row] for row in rows], subject, edit)
        subject.note("generates", "yes" if together else "one by one")

    def generates(self, prompts: list[tuple[int, ...]], subject: Subject, edit: ByHand) -> None:
        """Compare greedy tokens, their logits, and the scores of beams, with those of whole passes edited by hand."""
        paired = subject.member.head == "seq2seq"
        batch = batch_of(prompts, "right" if paired else "left")
        del batch["position_ids"]
        settings = {
            "max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, "forced_eos_token_id": None,
            "return_dict_in_generate": True,
        }  # fmt: skip
        attachment = self.put_on()
        try:
            greedy = subject.model.generate(**batch, **settings, output_logits=True)
            beams = subject.model.generate(**batch, **settings, num_beams=2, length_penalty=0.0, output_scores=True)
        finally:
            attachment.detach()

        def said(row: int, more: list[int]) -> Tensor:
            asked = {"ids": torch.tensor([[*prompts[row], *more]])}
            if paired:
                begun = torch.tensor([[subject.model.config.decoder_start_token_id, *more]])
                asked = {"ids": torch.tensor([prompts[row]]), "decoder_input_ids": begun}
            return edit.run(edited_columns(len(prompts[row])), lambda: subject.logits(**asked)[0])[-len(more) - 1 :]

        for row in range(len(prompts)):
            chosen = greedy.sequences[row, -NEW:].tolist()
            expected = said(row, chosen)[:-1]
            assert expected.argmax(-1).tolist() == chosen
            torch.testing.assert_close(torch.stack(greedy.logits, 1)[row], expected, **NEAR)
            chosen = beams.sequences[row, -NEW:].tolist()
            total = said(row, chosen)[:-1].log_softmax(-1)[range(NEW), chosen].sum()
            torch.testing.assert_close(beams.sequences_scores[row], total, **NEAR)

    def test_a_recipe_is_read_back_and_baked_into_a_checkpoint_with_the_same_logits(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        model, anatomy = subject.model, subject.anatomy
        edits: list[Intervention] = []
        tensors = []
        for index, site in enumerate(subject.read_sites):
            outputs, inputs = anatomy.read_weight(model, site).shape
            lora = LowRankUpdate(site, rank=2, alpha=4)
            found = (RankReduction(site, SHARE), SingularValuePruning(site, (0, 1)), SpectrumScaling(site))
            edits.append((*found, lora)[index % 4])
            tensors.append(
                factors(lora, (outputs, inputs)) if edits[-1] is lora else scales(edits[-1], min(outputs, inputs))
            )
        holding = self.holding_biases(subject)
        for site in holding:
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
        baked = Subject(subject.member, loaded.eval(), anatomy).logits()
        torch.testing.assert_close(baked, expected, atol=5e-6, rtol=0)
        subject.note("biases", " ".join(dict.fromkeys(site.matrix_type for site in holding)) or "none")

    def holding_biases(self, subject: Subject) -> list[WeightSite]:
        """The matrices whose biases the architecture can hold: they have one, or a setting of its config gives them one."""
        model, text = subject.model, subject.model.config.get_text_config()
        base = {name for name, _ in model.named_parameters()}
        held = set(base)
        for name, value in text.to_dict().items():
            if "bias" in name and isinstance(value, bool):
                setattr(text, name, not value)
                try:
                    with torch.device("meta"):
                        other = {own for own, _ in type(model)(model.config).named_parameters()}
                finally:
                    setattr(text, name, value)
                held |= other if base <= other else set()
        whole = [site for site in subject.read_sites if subject.anatomy.spelling(site).sees_every_token]
        return [site for site in whole if f"{subject.anatomy.module_path(site)}.bias" in held]

    def test_gradients_are_the_same_where_blocks_are_recomputed(self, subject: Subject) -> None:
        model, stack, layer = subject.model, subject.stacks[0], subject.layer
        here = (site for site in subject.sites if (site.layer, site.stack, site.expert) == (layer, stack, None))
        site = next(site for site in here if subject.anatomy.spelling(site).sees_every_token)
        states = LowRankEdit(StreamSite(layer, stack=stack), "loreft", rank=4, positions=Positions(reach="all"))
        outputs, inputs = subject.anatomy.read_weight(model, site).shape
        size, generator = subject.anatomy.stacks[stack].hidden_size, torch.Generator().manual_seed(0)
        tensors = [
            SpectrumScaling(site).initial_tensors((outputs, inputs)),
            states.initial_tensors(size, init="paper", generator=generator),
        ]

        def gradients() -> list[Tensor]:
            torch.manual_seed(0)
            learning = [parameter for module in attachment.modules for parameter in module.parameters()]
            loss = subject.call().logits.float().logsumexp(-1).sum()
            return list(torch.autograd.grad(loss, learning))

        attachment = attach_interventions(
            model, [SpectrumScaling(site), states], anatomy=subject.anatomy, tensors=tensors, trainable=True
        )
        try:
            model.train()
            expected = gradients()
            if subject.cannot("recomputes nothing"):
                with pytest.raises(ValueError, match=TRAITS["recomputes nothing"]):
                    model.activation_checkpointing_enable()
                subject.note("not: recomputing blocks", f"transformers {TRAITS['recomputes nothing']} of this model")
                found = expected
            else:
                model.activation_checkpointing_enable()
                found = gradients()
                model.activation_checkpointing_disable()
                model.disable_input_require_grads()
        finally:
            model.eval()
            attachment.detach()
        assert all(bool(gradient.any()) for gradient in expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)

    def test_every_method_comes_off_bit_for_bit_in_bfloat16(self, subject: Subject) -> None:
        model, anatomy = subject.member.build().bfloat16(), subject.anatomy
        own = Subject(subject.member, model, anatomy)
        before, plain = own.state(), own.logits()
        sites = [site for site in subject.read_sites if min(anatomy.read_weight(model, site).shape) > 8]
        whole = [site for site in sites if site.expert is None]
        tapped = [site for site in whole if site.matrix_type in ("output", "mixer_out")] or whole
        for index, make in enumerate(EDITS.values()):
            entry = make(sites[index % len(sites)])
            biased = getattr(entry, "bias", "none")
            if biased != "none":  # at a matrix that reads all tokens, sequence by sequence
                entry = make(tapped[0])
            outputs, inputs = anatomy.read_weight(model, entry.site).shape
            tensors = scales(entry, min(outputs, inputs))
            if biased != "none":
                shape = {"mean": (outputs,), "position": (IDS.shape[1], outputs)}[biased]
                tensors = {"bias": torch.randn(shape, generator=torch.Generator().manual_seed(0))}
            with applied_interventions(model, [entry], anatomy=anatomy, tensors=[tensors]):
                assert not torch.equal(own.logits(), plain), entry
            assert all(torch.equal(tensor, before[name]) for name, tensor in own.state().items()), entry
        assert torch.equal(own.logits(), plain)

    def test_hidden_states_are_edited_in_every_stream_there_is(self, subject: Subject) -> None:
        model, anatomy = subject.model, subject.anatomy
        plain, edited = subject.logits(), []
        for stack in subject.stacks:
            if stack in (Stack.VISION, Stack.CROSS):  # an eye sees nothing here; its text's is edited
                continue
            for stream in Stream:
                site = StreamSite(subject.layer, stream, stack=stack)
                entry = LowRankEdit(site, "lobireft", rank=4, positions=Positions(reach="all"))
                size = anatomy.stacks[stack].hidden_size
                tensors = entry.initial_tensors(size, init="paper", generator=torch.Generator().manual_seed(0))
                try:
                    anatomy.stream_module(model, site)
                except SiteError:
                    continue
                with applied_interventions(model, [entry], anatomy=anatomy, tensors=[tensors]):
                    assert not torch.allclose(subject.logits(), plain, atol=1e-4), site
                edited.append(str(stream))
        assert str(Stream.BLOCK) in edited
        assert torch.equal(subject.logits(), plain)
        subject.note("streams", " ".join(dict.fromkeys(edited)))


def test_every_member_has_a_name_of_its_own() -> None:
    assert len({member.name for member in MEMBERS}) == len(MEMBERS)
    assert len({member.model_type for member in MEMBERS}) >= 80
    assert all(trait in TRAITS for member in MEMBERS for trait in member.traits)


def test_the_page_of_models_says_what_the_suite_found(request: pytest.FixtureRequest) -> None:
    """In the same run, for the page is made of what the tests above noted."""
    if FOUND.keys() != {member.name for member in MEMBERS} or not all(own.keys() >= ASKED for own in FOUND.values()):
        pytest.skip("only a part of the suite was run")
    root = request.config.rootpath
    spec = importlib.util.spec_from_file_location("write_models", root / "scripts" / "write_models.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (root / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == script.page_of(FOUND), "run python scripts/write_models.py"
