"""An edit touches the same tokens however a forward pass is laid out."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from tests.fixtures.layouts import (
    EXACT,
    MODELS,
    POSITIONS,
    Maker,
    assert_rows,
    by_the_paper,
    every_model,
    every_model_and_position,
    one_by_one,
)
from torch import Tensor, nn

from strop.anatomy import Anatomy, MatrixType, Stream, StreamSite, WeightSite, hidden_states_entering, logits_at
from strop.interventions import RankReduction, applied_interventions, attachments_of, prompt_lengths
from strop.linalg import decompose
from strop.recipe import Recipe, attach, detach
from strop.scoring import Scorer
from strop.tasks import Example


@pytest.fixture(autouse=True)
def with_gradients_only_where_asked(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.set_grad_enabled("gradients" in request.node.name):
        yield


@every_model_and_position(POSITIONS)
def test_edits_are_those_of_a_hand_written_hook(
    model_type: str, text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    attachment = put_on(model, text)
    edits, tensors = attachment.interventions, attachment.tensors
    expected = one_by_one(model, rows)
    attachment.detach()
    anatomy = Anatomy.of(model)
    for row, (length, batch) in enumerate((n, rows.batch(rows=[i])) for i, n in enumerate(rows.lengths)):
        handles = []
        for edit, learned in zip(edits, tensors, strict=True):
            columns = by_the_paper(text, length, batch["input_ids"].shape[1])

            def hook(
                _: Any, __: Any, output: Any, edit: Any = edit, learned: Any = learned, columns: Any = columns
            ) -> Any:
                states = (output[0] if isinstance(output, tuple) else output).clone()
                B, W, b = learned["basis"], learned.get("source"), learned["bias"]
                R = torch.linalg.qr(B.T).Q.T  # rows of other signs span the same: Rᵀ(… R h) must be told apart
                R = R * torch.sign((R * torch.linalg.solve(torch.linalg.cholesky(B @ B.T), B)).sum(1))[:, None]
                for column in columns:
                    h = states[0, column].clone()
                    states[0, column] = {
                        "loreft": lambda h: h + R.T @ (W @ h + b - R @ h),
                        "direft": lambda h: h + B.T @ (W @ h + b),
                        "noreft": lambda h: h + B.T @ (W @ h + b - B @ h),
                        "lobireft": lambda h: h + R.T @ b,
                    }[edit.method](h)
                return (states, *output[1:]) if isinstance(output, tuple) else states

            handles.append(anatomy.stream_module(model, edit.site).register_forward_hook(hook))
        torch.testing.assert_close(model(**batch).logits[0], expected[row], **EXACT)
        for handle in handles:
            handle.remove()
    assert not any(
        torch.allclose(plain, edited, atol=1e-3)
        for plain, edited in zip(one_by_one(model, rows), expected, strict=True)
    )


@every_model_and_position(POSITIONS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_padded_on_either_side_is_each_row_alone(
    model_type: str, text: str, side: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    put_on(model, text)
    expected = one_by_one(model, rows)
    batch = rows.batch(side)
    assert_rows(rows.real(model(**batch).logits, side), expected)
    del batch["labels"]
    with prompt_lengths(rows.lengths):
        assert_rows(rows.real(model(**batch).logits, side), expected)
    with prompt_lengths(torch.tensor(rows.lengths)):
        states = model.base_model(**batch).last_hidden_state
        assert_rows(rows.real(model.get_output_embeddings()(states), side), expected)


@every_model
def test_padding_on_the_right_needs_no_mask_where_lengths_are_declared(
    model_type: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    put_on(model, "f2+l3")
    expected = one_by_one(model, rows)
    with prompt_lengths(rows.lengths):
        found = model(input_ids=rows.batch()["input_ids"], use_cache=False).logits
    assert_rows(rows.real(found), expected)


def test_padding_in_a_left_padded_batch_of_prompts_alone_is_not_counted(exact: Maker, put_on: Maker, rows: Any) -> None:
    """Labels of -100 throughout: there is nothing but a prompt."""
    model = exact("llama")
    put_on(model, "l2")
    batch = rows.batch("left")
    batch["labels"] = torch.full_like(batch["labels"], -100)
    with prompt_lengths(batch["attention_mask"].sum(1)):
        expected = model(**batch).logits
    assert torch.equal(model(**batch).logits, expected)


@every_model
def test_embeddings_do_as_well_as_ids(model_type: str, exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact(model_type)
    put_on(model, "f2+l3")
    batch = rows.batch("left")
    expected = model(**batch).logits
    ids = batch.pop("input_ids")
    torch.testing.assert_close(
        model(inputs_embeds=model.get_input_embeddings()(ids), **batch).logits, expected, **EXACT
    )


def test_arguments_by_place_do_as_well_as_by_name(exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("llama")
    put_on(model, "f2+l3")
    batch = rows.batch("left")
    expected = model(**batch).logits
    found = model(batch.pop("input_ids"), batch.pop("attention_mask"), **batch).logits
    assert torch.equal(found, expected)


@every_model
def test_a_prompt_read_in_pieces_is_the_prompt_read_at_once(
    model_type: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    put_on(model, "f2+l3")
    batch = rows.batch("left")
    expected = model(**batch).logits
    real = batch["attention_mask"].bool()
    total, past, pieces = batch["input_ids"].shape[1], None, []
    with prompt_lengths(rows.lengths):
        for start, stop in ((0, 4), (4, 5), (5, 11), (11, total)):
            output = model(
                input_ids=batch["input_ids"][:, start:stop],
                attention_mask=batch["attention_mask"][:, :stop],
                position_ids=batch["position_ids"][:, start:stop],
                past_key_values=past,
                use_cache=True,
            )
            past = output.past_key_values
            pieces.append(output.logits)
    torch.testing.assert_close(torch.cat(pieces, 1)[real], expected[real], **EXACT)


@every_model
def test_the_hidden_states_a_model_shows_are_the_edited_ones(
    model_type: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    batch = rows.batch(rows=[1])
    plain = model(**batch, output_hidden_states=True).hidden_states
    put_on(model, "f2+l3", [(StreamSite(0), "lobireft")])
    shown = model(**batch, output_hidden_states=True).hidden_states
    assert torch.equal(shown[0], plain[0])
    assert (shown[1] != plain[1]).any(-1)[0].nonzero().flatten().tolist() == by_the_paper("f2+l3", 9, 13)
    assert not torch.equal(shown[2], plain[2])


def test_the_shown_states_of_a_block_are_not_written_over(exact: Maker, put_on: Maker, rows: Any) -> None:
    """The very tensor a block returned stays as it was; a hook that ran before has not lost its numbers."""
    model = exact("llama")
    before: list[Tensor] = []
    handle = put_on(model, "f2+l3", [(StreamSite(0), "loreft")])
    inner = model.model.layers[0]
    own = inner.forward
    inner.forward = lambda *a, **k: before.append(own(*a, **k)) or before[-1]
    model(**rows.batch())
    del inner.forward
    handle.detach()
    inner_plain = model(**rows.batch(), output_hidden_states=True).hidden_states[1]
    assert torch.equal(before[0], inner_plain)


# Several edits


@every_model
def test_two_attachments_edit_in_the_order_they_were_put_on(
    model_type: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model, batch = exact(model_type), rows.batch("left")
    first, second = [(StreamSite(1), "loreft")], [(StreamSite(1), "noreft")]

    def in_order(*attachments: tuple[Any, int]) -> Tensor:
        handles = [put_on(model, "f2+l3", sites, seed=seed) for sites, seed in attachments]
        found: Tensor = model(**batch).logits
        for handle in reversed(handles):
            handle.detach()
        return found

    forth, back = in_order((first, 1), (second, 2)), in_order((second, 2), (first, 1))
    assert not torch.allclose(forth, back, atol=1e-3)
    one, two = put_on(model, "f2+l3", first, seed=1), put_on(model, "f2+l3", second, seed=2)
    interventions, tensors = [*one.interventions, *two.interventions], [*one.tensors, *two.tensors]
    two.detach()
    alone = model(**batch).logits
    one.detach()
    torch.testing.assert_close(in_order((first, 1)), alone, atol=0, rtol=0)
    with applied_interventions(model, interventions, tensors=tensors):
        assert torch.equal(model(**batch).logits, forth)


def test_shares_of_two_edits_at_one_site_make_up_the_tied_edit(exact: Maker, put_on: Maker, rows: Any) -> None:
    model, batch, site = exact("llama"), rows.batch("left"), [(StreamSite(1), "loreft")]
    tied = put_on(model, "f2+l3", site)
    expected = model(**batch).logits
    tied.detach()
    put_on(model, "f2(+l3)", site)
    put_on(model, "(f2+)l3", site)
    torch.testing.assert_close(model(**batch).logits, expected, **EXACT)


@every_model
def test_an_edit_of_states_stands_on_an_edit_of_weights(
    model_type: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    site, batch = WeightSite(1, MatrixType.DOWN), rows.batch("left")
    model, other = exact(model_type), exact(model_type)
    anatomy = Anatomy.of(other)
    matrix = anatomy.read_weight(other, site).clone()
    anatomy.write_matrix(anatomy.parameter(other, site).data, site, decompose(matrix).recompose(8))
    put_on(other, "f2+l3")
    with applied_interventions(model, [RankReduction(site, rank_fraction=0.25)]):
        put_on(model, "f2+l3")
        torch.testing.assert_close(model(**batch).logits, other(**batch).logits, **EXACT)
        attachments_of(model)[-1].detach()


# Learning


def gradients(model: Any, attachment: Any, batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Those of one backward pass through several forward passes."""
    losses = [model(**batch, use_cache=False).loss for batch in batches]
    torch.stack(losses).sum().backward()
    return {
        f"{index}.{name}": parameter.grad.clone()
        for index, edit in enumerate(attachment.edits)
        for name, parameter in edit.named_parameters()
    }


def checkpointing(model: Any, *, reentrant: bool) -> None:
    settings = {"use_reentrant": reentrant}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
    if reentrant:
        model.enable_input_require_grads()


SITES = {
    "every stream": None,
    "block": [(StreamSite(1), "loreft"), (StreamSite(2), "direft")],
    "attention": [(StreamSite(1, Stream.ATTENTION), "loreft"), (StreamSite(2, Stream.ATTENTION), "direft")],
    "mlp": [(StreamSite(1, Stream.MLP), "loreft"), (StreamSite(2, Stream.MLP), "direft")],
}


@pytest.mark.parametrize(
    ("model_type", "where", "passes"),
    [
        *itertools.product(MODELS[:1], SITES, [1, 2]),
        *itertools.product(MODELS[1:], ["every stream"], [2]),
    ],
)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_are_the_same_with_checkpointing(
    model_type: str, where: str, reentrant: bool, passes: int, exact: Maker, put_on: Maker, rows: Any
) -> None:
    """Two passes before one backward, as preference training has them, have edits at different tokens."""
    sites = SITES[where]
    chosen = () if sites is None else (sites,)
    batches = [rows.batch("left", rows=[0, 1, 2]), rows.batch("right", rows=[3, 1, 0])][:passes]
    plain, saving = (
        exact(model_type, **no_dropout(model_type)).train(),
        exact(model_type, **no_dropout(model_type)).train(),
    )
    expected = gradients(plain, put_on(plain, "f2+l3", *chosen, trainable=True), batches)
    attachment = put_on(saving, "f2+l3", *chosen, trainable=True)
    checkpointing(saving, reentrant=reentrant)
    functions = [block._gradient_checkpointing_func for block in Anatomy.of(saving).blocks(saving)]
    found = gradients(saving, attachment, batches)
    assert expected.keys() == found.keys()
    assert all(bool(gradient.abs().sum() > 0) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, **EXACT)
    attachment.detach()
    assert [block._gradient_checkpointing_func for block in Anatomy.of(saving).blocks(saving)] == functions


def no_dropout(model_type: str) -> dict[str, float]:
    names = {"gpt2": ("embd_pdrop", "attn_pdrop", "resid_pdrop"), "gptj": ("embd_pdrop", "attn_pdrop", "resid_pdrop")}
    return dict.fromkeys(names.get(model_type, ()), 0.0)


def test_gradients_of_a_batch_are_the_sum_of_those_of_its_rows(exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("llama")
    attachment = put_on(model, "f2+l3", trainable=True)
    weight = torch.randn(320, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def of(losses: Tensor) -> list[Tensor]:
        parameters = [parameter for edit in attachment.edits for parameter in edit.parameters()]
        return list(torch.autograd.grad(losses, parameters))

    together = of(sum((own @ weight).sum() for own in rows.real(model(**rows.batch("left")).logits, "left")))
    alone = [of((own @ weight).sum()) for own in one_by_one(model, rows)]
    for index, gradient in enumerate(together):
        torch.testing.assert_close(gradient, sum(row[index] for row in alone), **EXACT)


# A wrapper around the model


class Wrapper(nn.Module):
    """What PEFT's wrapper looks like from outside."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.own = nn.Parameter(torch.zeros(3))

    def get_base_model(self) -> Any:
        return self.inner

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        return self.inner(*arguments, **settings)


def test_a_wrapped_model_is_edited_through_its_wrapper(exact: Maker, put_on: Maker, rows: Any) -> None:
    model, batch = exact("llama"), rows.batch("left")
    wrapper, plain = Wrapper(model), model(**batch).logits
    bare = put_on(model, "f2+l3")
    expected, edits, tensors = model(**batch).logits, bare.interventions, bare.tensors
    bare.detach()
    recipe = Recipe.of(model, edits, tensors=tensors)
    for trainable in (False, True):
        attachment = attach(wrapper, recipe, trainable=trainable)  # type: ignore[arg-type]
        assert torch.equal(wrapper(**batch).logits, expected)
        assert torch.equal(model(**batch).logits, expected)
        assert wrapper.own.requires_grad
        with prompt_lengths(rows.lengths):
            found = wrapper(
                batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=batch["position_ids"]
            )
        assert torch.equal(found.logits, expected)
        assert recipe.learned_by(attachment) == recipe
        detach(wrapper)  # type: ignore[arg-type]
        assert torch.equal(wrapper(**batch).logits, plain)
        assert not wrapper._forward_hooks
        assert not wrapper._forward_pre_hooks


# Part of a model


@every_model
@pytest.mark.parametrize("text", ["f2+l3", "all"])
def test_running_part_of_a_model_is_running_the_whole(
    model_type: str, text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model, batch = exact(model_type), rows.batch()
    anatomy = Anatomy.of(model)
    put_on(model, text)
    expected = model(**batch).logits
    ids = batch["input_ids"]
    where = [
        (row, column) for row, total in enumerate(batch["attention_mask"].sum(1).tolist()) for column in range(total)
    ]
    rows_, columns = (torch.tensor(part) for part in zip(*where, strict=True))
    with prompt_lengths(rows.lengths):
        state = None
        for start in range(anatomy.layer_count + 1):
            at_once = hidden_states_entering(model, anatomy, ids, layer=start)
            state = hidden_states_entering(model, anatomy, ids, layer=start, start=max(start - 1, 0), state=state)
            torch.testing.assert_close(state, at_once, **EXACT)
            found = logits_at(model, anatomy, ids, rows_, columns, start=start, state=state)
            torch.testing.assert_close(found, expected[rows_, columns], **EXACT)


@pytest.mark.parametrize("text", ["f2+l3", "l1", "all"])
@pytest.mark.parametrize("score", ["exact", "first_token", "perplexity"])
def test_scores_with_an_edit_on_are_those_of_each_example_by_hand(
    text: str, score: Any, exact: Maker, put_on: Maker, small_tokenizer: Any
) -> None:
    model = exact("llama")
    examples = [
        Example(prompt, answer)
        for prompt in ("The city of Lyon is in", "1 + 2 =", "The", "and the capital of Brazil is Brasilia and")
        for answer in (" France", " Brazil", " Paris and", " the city of Lyon is in Brazil")
    ]
    put_on(model, text)
    found = Scorer(model, small_tokenizer, examples, score).evaluate()
    for example, loss in zip(examples, found.loss, strict=True):
        prompt, answer = (small_tokenizer(part)["input_ids"] for part in (example.prompt, example.answer))
        with prompt_lengths([len(prompt)]):
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
        log_p = logits.log_softmax(-1)
        scored = answer[:1] if score == "first_token" else answer
        by_hand = -sum(float(log_p[len(prompt) + i - 1, token]) for i, token in enumerate(scored)) / len(scored)
        assert loss == pytest.approx(by_hand, rel=1e-4, abs=1e-5)
