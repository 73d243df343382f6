"""What a model with edits generates depends neither on the batch, its padding, the cache, nor the way tokens are found."""

from typing import Any

import pytest
import torch
from tests.fixtures.layouts import EXACT, Maker, every_model, every_model_and_position
from torch import Tensor
from transformers import GenerationConfig

from strop.anatomy import StreamSite
from strop.errors import InterventionError
from strop.interventions import LowRankEdit, Positions, applied_interventions, prompt_lengths
from strop.recipe import Recipe, applied

pytestmark = pytest.mark.thorough

POSITIONS = ["f2+l3", "f3", "l1", "prompt", "all"]
NEW = 6
every_position = pytest.mark.parametrize("text", POSITIONS)
Answers = tuple[list[list[int]], Tensor]


def generate(model: Any, batch: dict[str, Tensor], **settings: Any) -> Answers:
    """Return the tokens generated for each row, and the logits (rows, tokens, vocabulary) they were chosen by."""
    given = {"max_new_tokens": NEW, "do_sample": False, **settings}
    found = model.generate(**batch, **given, return_dict_in_generate=True, output_logits=True)
    return found.sequences[:, batch["input_ids"].shape[1] :].tolist(), torch.stack(found.logits, 1)


def one_by_one(model: Any, rows: Any, **settings: Any) -> Answers:
    parts = [generate(model, rows.batch(rows=[row], answers=False), **settings) for row in range(len(rows.prompts))]
    return [tokens for found, _ in parts for tokens in found], torch.cat([logits for _, logits in parts])


def assert_same(one: Answers, other: Answers, what: str = "") -> None:
    assert one[0] == other[0], what
    torch.testing.assert_close(one[1], other[1], msg=lambda text: f"{what}: {text}", **EXACT)


@every_model_and_position(POSITIONS)
def test_a_batch_is_each_row_alone(model_type: str, text: str, exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact(model_type)
    plain = one_by_one(model, rows)
    put_on(model, text)
    alone = one_by_one(model, rows)
    assert not torch.allclose(alone[1][:, 0], plain[1][:, 0], atol=1e-3)
    assert_same(generate(model, rows.batch("left", answers=False)), alone)


@every_model_and_position(POSITIONS)
def test_training_and_generation_edit_the_same_tokens(
    model_type: str, text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    """The logits of a forward pass with labels, of generation's first step, and of all that follow."""
    model = exact(model_type)
    put_on(model, text)
    tokens, logits = one_by_one(model, rows)
    for row, prompt in enumerate(rows.prompts):
        ids = torch.tensor([[*prompt, *tokens[row]]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        with torch.no_grad():
            whole = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).logits[0]
        torch.testing.assert_close(whole[len(prompt) - 1 : -1].float(), logits[row], **EXACT)


@pytest.mark.parametrize("text", ["f2+l3", "f3", "l1", "prompt"])
def test_generated_tokens_are_edited_only_where_positions_are_all(
    text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact("llama")
    seen: list[Tensor] = []
    model.model.layers[0].register_forward_hook(lambda _, __, output: seen.append(output))
    batch = rows.batch(rows=[1], answers=False)
    for positions, edited in ((text, False), ("all", True)):
        attachment = put_on(model, positions, [(StreamSite(0), "lobireft")])
        seen.clear()
        generate(model, batch)
        steps = [len(states[0]) for states in seen]
        assert steps == [9, 1, 1, 1, 1, 1]
        inputs: list[Tensor] = []
        attachment.edits[0].register_forward_pre_hook(lambda _, given, inputs=inputs: inputs.append(given[0]))
        generate(model, batch)
        assert len(inputs) == (6 if edited else 1)
        attachment.detach()


# Ways of finding tokens

WAYS: dict[str, dict[str, Any]] = {
    "no cache": {"use_cache": False},
    "a static cache": {"cache_implementation": "static"},
    "a dynamic cache": {"cache_implementation": "dynamic"},
    "the prompt in chunks of 2": {"prefill_chunk_size": 2},
    "the prompt in chunks of 5": {"prefill_chunk_size": 5},
    "the prompt in chunks of 1": {"prefill_chunk_size": 1},
}


@every_model_and_position(POSITIONS)
def test_the_way_the_cache_is_kept_changes_nothing(
    model_type: str, text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    put_on(model, text)
    batch = rows.batch("left", answers=False)
    expected = generate(model, batch)
    for way in WAYS:
        assert_same(generate(model, batch, **WAYS[way]), expected, way)


@every_position
@pytest.mark.parametrize("ids", ["by place", "as inputs", "as embeddings"])
def test_the_way_the_prompt_is_handed_over_changes_nothing(
    text: str, ids: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact("llama")
    put_on(model, text)
    batch = rows.batch("left", answers=False)
    given, mask = batch["input_ids"], batch["attention_mask"]
    settings = {"attention_mask": mask, "max_new_tokens": NEW, "do_sample": False}
    expected = model.generate(given, **settings)[:, given.shape[1] :]
    if ids == "by place":
        found = model.generate(given, **settings)[:, given.shape[1] :]
    elif ids == "as inputs":
        found = model.generate(inputs=given, **settings)[:, given.shape[1] :]
    else:
        found = model.generate(inputs_embeds=model.get_input_embeddings()(given), **settings)
    assert found.tolist() == expected.tolist() == generate(model, batch)[0]


@every_model_and_position(POSITIONS)
@pytest.mark.parametrize("row", [0, 1])
def test_guessed_tokens_are_checked_as_if_they_had_been_generated(
    model_type: str, text: str, row: int, exact: Maker, put_on: Maker, rows: Any
) -> None:
    """Prompt lookup and a smaller model guess several tokens, and one pass over all of them accepts some."""
    model, assistant = exact(model_type), exact(model_type, **fewer_layers(model_type))
    put_on(model, text)
    batch = rows.batch(rows=[row], answers=False)
    batch = {name: torch.cat([tensor, tensor], 1) for name, tensor in batch.items()}  # something to look up
    expected = generate(model, batch, max_new_tokens=12)
    assert_same(generate(model, batch, max_new_tokens=12, prompt_lookup_num_tokens=3), expected)
    assert_same(generate(model, batch, max_new_tokens=12, assistant_model=assistant), expected)


def fewer_layers(model_type: str) -> dict[str, int]:
    return {"n_layer": 1} if model_type in ("gpt2", "gptj") else {"num_hidden_layers": 1}


@every_position
def test_a_model_may_be_its_own_assistant(text: str, exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("llama")
    put_on(model, text)
    batch = rows.batch(rows=[1], answers=False)
    assert_same(generate(model, batch, assistant_model=model), generate(model, batch))


# Several continuations of a prompt


@every_model_and_position(POSITIONS)
def test_beams_of_a_batch_are_the_beams_of_each_row(
    model_type: str, text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    put_on(model, text)
    settings = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": NEW, "do_sample": False}
    batch = rows.batch("left", answers=False)
    together = model.generate(**batch, **settings, return_dict_in_generate=True, output_scores=True)
    width = batch["input_ids"].shape[1]
    for row, prompt in enumerate(rows.prompts):
        alone = model.generate(
            **rows.batch(rows=[row], answers=False), **settings, return_dict_in_generate=True, output_scores=True
        )
        both = slice(2 * row, 2 * row + 2)
        assert together.sequences[both, width:].tolist() == alone.sequences[:, len(prompt) :].tolist()
        torch.testing.assert_close(together.sequences_scores[both], alone.sequences_scores, **EXACT)


@every_model_and_position(POSITIONS)
def test_every_sampled_continuation_starts_from_the_same_edited_prompt(
    model_type: str, text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    put_on(model, text)
    batch = rows.batch("left", answers=False)
    _, expected = generate(model, batch)
    torch.manual_seed(0)
    tokens, logits = generate(model, batch, do_sample=True, num_return_sequences=3)
    torch.testing.assert_close(logits[:, 0], expected[:, 0].repeat_interleave(3, 0), **EXACT)
    assert any(len({tuple(tokens[3 * row + copy]) for copy in range(3)}) > 1 for row in range(4))
    for index in range(0, 12, 5):  # what follows is that of the same tokens, read at once
        prompt = rows.prompts[index // 3]
        with torch.no_grad(), prompt_lengths([len(prompt)]):
            whole = model(input_ids=torch.tensor([[*prompt, *tokens[index]]])).logits[0]
        torch.testing.assert_close(whole[len(prompt) - 1 : -1].float(), logits[index], **EXACT)


# Conversations


@every_model
@pytest.mark.parametrize("text", ["f2", "f3", "all"])
@pytest.mark.parametrize("given", ["everything so far", "the new tokens alone"])
def test_a_conversation_goes_on_as_if_it_were_read_from_its_beginning(
    model_type: str, text: str, given: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    """Where its edited positions are the same, which they are not at the end of a prompt that has grown."""
    model = exact(model_type)
    put_on(model, text)
    ids = torch.tensor([rows.prompts[1]])
    mask = torch.ones_like(ids)
    first = model.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True)
    question = torch.tensor([rows.prompts[2]])
    so_far = torch.cat([first.sequences, question], 1)
    whole = {"input_ids": so_far, "attention_mask": torch.ones_like(so_far)}
    expected = generate(model, whole)
    cached = first.past_key_values.get_seq_length()
    ids = so_far if given == "everything so far" else so_far[:, cached:]
    found = model.generate(
        input_ids=ids,
        attention_mask=whole["attention_mask"],
        past_key_values=first.past_key_values,
        max_new_tokens=NEW,
        do_sample=False,
    )
    assert found[:, ids.shape[1] :].tolist() == expected[0]


@pytest.mark.parametrize("text", ["f3", "l2", "f2+l3", "prompt"])
def test_the_end_of_a_prompt_that_goes_on_from_a_cache_is_the_end_of_all_of_it(
    text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact("llama")
    put_on(model, text)
    ids = torch.tensor([rows.prompts[1] + rows.prompts[2]])
    with torch.no_grad(), prompt_lengths([ids.shape[1]]):
        past = model(input_ids=ids[:, :4], use_cache=True).past_key_values
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert generate(model, {**whole, "past_key_values": past})[0] == generate(model, whole)[0]


# What is refused


def test_several_rows_without_a_mask_are_refused(exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("llama")
    put_on(model, "f2+l3")
    batch = rows.batch("left", answers=False)
    with pytest.raises(InterventionError, match="pass generate the attention_mask the tokenizer returns"):
        model.generate(batch["input_ids"], max_new_tokens=2)
    assert_same(generate(model, batch), generate(model, batch))


def test_guidance_by_a_second_prompt_is_refused_unless_every_token_is_edited(
    exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact("llama")
    batch = rows.batch(rows=[1], answers=False)
    everywhere = put_on(model, "all")
    assert len(generate(model, batch, guidance_scale=1.5)[0][0]) == NEW
    everywhere.detach()
    put_on(model, "f3")
    expected = generate(model, batch)
    assert_same(generate(model, batch, guidance_scale=1.0), expected)
    guided = GenerationConfig(guidance_scale=1.5, max_new_tokens=2, pad_token_id=0)
    for given in (
        lambda: generate(model, batch, guidance_scale=1.5),
        lambda: model.generate(batch["input_ids"], guided),
        lambda: model.generate(**batch, generation_config=guided),
    ):
        with pytest.raises(InterventionError, match="With a guidance_scale the model reads a second prompt"):
            given()


def test_one_row_needs_no_mask(exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("llama")
    put_on(model, "f2+l3")
    batch = rows.batch(rows=[1], answers=False)
    found = model.generate(batch["input_ids"], max_new_tokens=NEW, do_sample=False)
    assert found[:, 9:].tolist() == generate(model, batch)[0]


@every_model
@pytest.mark.parametrize("failure", [ValueError("half-way"), KeyboardInterrupt()])
def test_the_call_after_a_generation_that_failed_half_way_is_right(
    model_type: str, failure: BaseException, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    put_on(model, "f2+l3")
    batch = rows.batch("left", answers=False)
    expected = generate(model, batch)
    calls: list[int] = []

    def fail_at_the_third(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise failure

    handle = model.base_model.register_forward_pre_hook(fail_at_the_third)
    with pytest.raises(type(failure)):
        generate(model, batch)
    handle.remove()
    assert_same(generate(model, batch), expected)
    with pytest.raises(InterventionError, match="needs to know where prompts end"):
        model(**batch)


def test_generation_is_the_models_own_again_once_the_last_edit_is_off(exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("llama")
    batch = rows.batch("left", answers=False)
    plain = generate(model, batch)
    first, second = put_on(model, "f2+l3"), put_on(model, "l1", seed=1)
    assert "generate" in model.__dict__
    second.detach()
    assert "generate" in model.__dict__
    first.detach()
    assert "generate" not in model.__dict__
    found = generate(model, batch)
    assert found[0] == plain[0]
    assert torch.equal(found[1], plain[1])


# The real model


@pytest.mark.real
def test_the_real_model_edits_the_same_tokens_however_it_is_called(real: Any, tmp_path: Any) -> None:
    model, tokenizer = real
    prompts = ["The city of Lyon is in", "Water", "Once upon a time there was a small village by the sea, where"]
    edits = [LowRankEdit(StreamSite(layer), "loreft", rank=4, positions=Positions.parse("f3+l3")) for layer in (5, 20)]
    generator = torch.Generator().manual_seed(0)
    tensors = [
        edit.initial_tensors((model.config.hidden_size,) * 2, init="paper", generator=generator) for edit in edits
    ]
    recipe = Recipe.of(model, edits, tensors=tensors)
    texts = [f"{prompt} the" for prompt in prompts]
    singles = [tokenizer(text, return_tensors="pt") for text in texts]
    lengths = [single["input_ids"].shape[1] - 1 for single in singles]

    def alone() -> list[Tensor]:
        found = []
        for single, length in zip(singles, lengths, strict=True):
            with torch.no_grad(), prompt_lengths([length]):
                found.append(model(**single).logits[0, -1])
        return found

    plain = [model(**single).logits[0, -1].detach() for single in singles]
    with applied(model, recipe):
        expected = alone()
        assert all(float((one - other).abs().max()) > 0.05 for one, other in zip(expected, plain, strict=True))
        for side in ("left", "right"):
            batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side=side)
            mask = batch["attention_mask"]
            places = (mask.cumsum(1) - 1).clamp(min=0)
            with torch.no_grad(), prompt_lengths(lengths):
                logits = model(**batch, position_ids=places).logits
            last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
            torch.testing.assert_close(logits[range(3), last], torch.stack(expected), atol=2e-3, rtol=1e-3)
        batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        together = model.generate(**batch, max_new_tokens=8, do_sample=False)[:, batch["input_ids"].shape[1] :]
        for row, prompt in enumerate(prompts):
            single = tokenizer(prompt, return_tensors="pt")
            written = model.generate(**single, max_new_tokens=8, do_sample=False)[0, single["input_ids"].shape[1] :]
            assert together[row, : len(written)].tolist() == written.tolist()
    recipe.save(tmp_path / "edit")
    with applied(model, Recipe.load(tmp_path / "edit")):
        assert all(torch.equal(one, other) for one, other in zip(alone(), expected, strict=True))
    with applied_interventions(model, edits, tensors=tensors):
        assert all(torch.equal(one, other) for one, other in zip(alone(), expected, strict=True))
