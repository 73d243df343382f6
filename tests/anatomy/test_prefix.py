"""Running part of a model gives what running the whole of it gives."""

import dataclasses
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from tests.fixtures.unchecked import unchecked
from torch import Tensor, nn

from strop.anatomy import (
    Anatomy,
    Family,
    MatrixType,
    Spelling,
    evaluating,
    frozen,
    hidden_states_entering,
    input_device,
    logits_at,
)
from strop.errors import AnatomyError

MODEL_TYPES = [
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "granite", "olmo", "olmo2",
    "stablelm", "phi3", "gpt2", "gptj", "gpt_neox",
]  # fmt: skip
DESCRIBED = {
    "opt": (
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "word_embed_proj_dim": 32,
        },
        Family("OPT", ("opt",), "model.decoder.layers", {MatrixType.UP: Spelling("fc1")}),
    ),
    "gptj": (
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4, "n_positions": 128},
        Family("GPT-J", ("gptj",), "transformer.h", {MatrixType.UP: Spelling("mlp.fc_in")}, "tuple"),
    ),
    "bloom": (
        {"hidden_size": 32, "n_layer": 3, "n_head": 4},
        Family("BLOOM", ("bloom",), "transformer.h", {MatrixType.UP: Spelling("mlp.dense_h_to_4h")}, "tuple"),
    ),
}
Tiny = Callable[..., nn.Module]


@pytest.fixture(params=[*MODEL_TYPES, *DESCRIBED])
def any_model(request: pytest.FixtureRequest, tiny: Tiny, described: Tiny) -> tuple[nn.Module, Anatomy]:
    if request.param in DESCRIBED:
        settings, family = DESCRIBED[request.param]
        model = described(request.param, **settings)
        return model, Anatomy.of(model, family=family)
    model = tiny(request.param)
    return model, Anatomy.of(model)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def some_ids(batch: int = 3, tokens: int = 7) -> Tensor:
    return torch.randint(1, 320, (batch, tokens), generator=torch.Generator().manual_seed(0))


ROWS, COLUMNS = torch.tensor([0, 0, 1, 2]), torch.tensor([2, 6, 5, 0])


def whole(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids, use_cache=False).logits


def inputs_of_blocks(model: nn.Module, anatomy: Anatomy, ids: Tensor) -> list[Tensor]:
    """What enters each block, and what leaves the last, by plain hooks."""
    seen: list[Tensor] = []
    blocks = anatomy.blocks(model)
    handles = [block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0])) for block in blocks]
    handles.append(
        blocks[-1].register_forward_hook(
            lambda _, arguments, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
    )
    whole(model, ids)
    for handle in handles:
        handle.remove()
    return seen


def test_starting_at_any_block_from_its_kept_state_gives_the_whole_models_logits(
    any_model: tuple[nn.Module, Anatomy],
) -> None:
    model, anatomy = any_model
    ids = some_ids()
    expected = whole(model, ids)[ROWS, COLUMNS]
    torch.testing.assert_close(logits_at(model, anatomy, ids, ROWS, COLUMNS), expected, atol=1e-4, rtol=1e-4)
    for start in range(anatomy.layer_count + 1):
        state = hidden_states_entering(model, anatomy, ids, layer=start)
        found = logits_at(model, anatomy, ids, ROWS, COLUMNS, start=start, state=state)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_kept_states_are_what_enters_each_block_however_they_are_reached(
    any_model: tuple[nn.Module, Anatomy],
) -> None:
    model, anatomy = any_model
    ids = some_ids()
    expected = inputs_of_blocks(model, anatomy, ids)
    state: Tensor | None = None
    for layer in range(anatomy.layer_count + 1):
        at_once = hidden_states_entering(model, anatomy, ids, layer=layer)
        state = hidden_states_entering(model, anatomy, ids, layer=layer, start=max(layer - 1, 0), state=state)
        torch.testing.assert_close(at_once, expected[layer], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state, expected[layer], atol=1e-5, rtol=1e-5)


def test_the_state_that_is_fed_is_the_one_that_is_used(any_model: tuple[nn.Module, Anatomy]) -> None:
    model, anatomy = any_model
    ids = some_ids()
    for start in range(anatomy.layer_count + 1):
        state = hidden_states_entering(model, anatomy, ids, layer=start)
        other = state + torch.randn(state.shape, generator=torch.Generator().manual_seed(1))
        plain = logits_at(model, anatomy, ids, ROWS, COLUMNS, start=start, state=state)
        assert not torch.allclose(
            logits_at(model, anatomy, ids, ROWS, COLUMNS, start=start, state=other), plain, atol=1e-3
        )


def test_padding_on_the_right_does_not_reach_the_real_tokens(any_model: tuple[nn.Module, Anatomy]) -> None:
    model, anatomy = any_model
    ids = some_ids()
    padded = torch.cat([ids, torch.zeros(3, 5, dtype=torch.long)], dim=1)
    expected = logits_at(model, anatomy, ids, ROWS, COLUMNS)
    for start in (0, 1, anatomy.layer_count):
        state = hidden_states_entering(model, anatomy, padded, layer=start)
        found = logits_at(model, anatomy, padded, ROWS, COLUMNS, start=start, state=state)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def assert_untouched(model: nn.Module, anatomy: Anatomy) -> None:
    for block in anatomy.blocks(model):
        assert "forward" not in block.__dict__
        assert not block._forward_hooks
        assert not block._forward_pre_hooks
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_nothing_stays_on_the_model_after_a_call(any_model: tuple[nn.Module, Anatomy]) -> None:
    model, anatomy = any_model
    ids = some_ids()
    before = whole(model, ids)
    state = hidden_states_entering(model, anatomy, ids, layer=2)
    assert_untouched(model, anatomy)
    logits_at(model, anatomy, ids, ROWS, COLUMNS, start=2, state=state)
    assert_untouched(model, anatomy)
    assert torch.equal(whole(model, ids), before)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox"])
def test_nothing_stays_on_the_model_after_an_exception(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    ids = some_ids()
    before = whole(model, ids)
    bad_state = torch.zeros(3, 7, 5)
    with pytest.raises(RuntimeError):
        logits_at(model, anatomy, ids, ROWS, COLUMNS, start=1, state=bad_state)
    assert_untouched(model, anatomy)
    with pytest.raises(RuntimeError):
        hidden_states_entering(model, anatomy, ids, layer=2, start=1, state=bad_state)
    assert_untouched(model, anatomy)
    assert torch.equal(whole(model, ids), before)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gptj"])
def test_threads_that_run_parts_of_a_model_and_one_that_runs_all_of_it_do_not_meet(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    texts = [some_ids(tokens=tokens) for tokens in (7, 9, 11, 13)]
    states = [hidden_states_entering(model, anatomy, ids, layer=2) for ids in texts]

    def scored(index: int) -> Tensor:
        return logits_at(model, anatomy, texts[index], ROWS, COLUMNS, start=2, state=states[index])

    tasks = [
        lambda: scored(0),
        lambda: scored(1),
        lambda: whole(model, texts[2]),
        lambda: hidden_states_entering(model, anatomy, texts[3], layer=2),
    ]
    expected = [task() for task in tasks]
    right = [0] * len(tasks)

    def work(index: int) -> None:
        with torch.no_grad():
            for _ in range(25):
                right[index] += torch.equal(tasks[index](), expected[index])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert right == [25] * len(tasks)
    assert_untouched(model, anatomy)


def test_while_a_part_is_run_another_thread_runs_the_whole(tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    ids = some_ids()
    expected = whole(model, ids)
    found: list[Tensor] = []
    begun: list[bool] = []

    def call() -> None:
        with torch.no_grad():
            found.append(whole(model, ids))

    def meanwhile(*_: object) -> None:
        if not begun:
            begun.append(True)
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()

    handle = anatomy.blocks(model)[1].mlp.register_forward_hook(meanwhile)
    state = hidden_states_entering(model, anatomy, ids, layer=2)
    handle.remove()
    assert torch.equal(found[0], expected)
    assert torch.equal(state, hidden_states_entering(model, anatomy, ids, layer=2))
    assert_untouched(model, anatomy)


def test_starting_above_the_first_block_without_a_state_is_refused(tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    with pytest.raises(ValueError, match="Starting at block 2 needs the hidden state that enters it"):
        logits_at(model, anatomy, some_ids(), ROWS, COLUMNS, start=2)
    assert_untouched(model, anatomy)


def test_blocks_that_are_not_wanted_do_not_run(tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    ran: list[int] = []
    for index, block in enumerate(anatomy.blocks(model)):
        block.mlp.register_forward_hook(lambda *_, index=index: ran.append(index))
    state = hidden_states_entering(model, anatomy, some_ids(), layer=2)
    assert ran == [0, 1]
    logits_at(model, anatomy, some_ids(), ROWS, COLUMNS, start=2, state=state)
    assert ran == [0, 1, 2]


def test_only_the_scored_positions_reach_the_head(tiny: Tiny) -> None:
    model = tiny("llama")
    shapes = []
    model.lm_head.register_forward_hook(lambda _, arguments, output: shapes.append(tuple(arguments[0].shape)))
    logits_at(model, Anatomy.of(model), some_ids(), ROWS, COLUMNS)
    assert shapes == [(1, 4, 32)]


def test_hooks_of_others_survive_and_run(tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    seen: list[str] = []
    block = anatomy.blocks(model)[2]
    before = block.register_forward_pre_hook(lambda *_: seen.append("before"))
    after = block.register_forward_hook(lambda *_: seen.append("after"))
    head = model.lm_head.register_forward_pre_hook(lambda *_: seen.append("head"))
    state = hidden_states_entering(model, anatomy, some_ids(), layer=2)
    seen.clear()
    logits_at(model, anatomy, some_ids(), ROWS, COLUMNS, start=2, state=state)
    assert seen == ["before", "after", "head"]
    assert before.id in block._forward_pre_hooks
    assert after.id in block._forward_hooks
    assert head.id in model.lm_head._forward_pre_hooks


@pytest.mark.parametrize("fails", [False, True])
def test_a_forward_someone_put_on_a_block_is_put_back(fails: bool, tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    block = anatomy.blocks(model)[0]
    theirs = block.forward
    block.forward = theirs
    state = torch.zeros(3, 7, 5 if fails else 32)
    if fails:
        with pytest.raises(RuntimeError):
            logits_at(model, anatomy, some_ids(), ROWS, COLUMNS, start=1, state=state)
    else:
        logits_at(model, anatomy, some_ids(), ROWS, COLUMNS, start=1, state=state)
    assert block.__dict__["forward"] is theirs
    assert "forward" not in anatomy.blocks(model)[1].__dict__


def test_gradients_flow_through_the_blocks_that_run(tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    state = hidden_states_entering(model, anatomy, some_ids(), layer=1)
    with torch.enable_grad():
        logits_at(model, anatomy, some_ids(), ROWS, COLUMNS, start=1, state=state).sum().backward()
    reached = [block.mlp.up_proj.weight.grad is not None for block in anatomy.blocks(model)]
    assert reached == [False, True, True]


def test_evaluation_mode_is_given_back_module_by_module(tiny: Tiny) -> None:
    model = tiny("gpt2").train()
    model.transformer.h[1].eval()
    before = {name: module.training for name, module in model.named_modules()}
    with pytest.raises(ValueError, match="half-way"), evaluating(model):  # noqa: PT012
        assert not any(module.training for module in model.modules())
        raise ValueError("half-way")
    assert {name: module.training for name, module in model.named_modules()} == before


def test_frozen_parameters_are_given_back_what_they_asked_for(tiny: Tiny) -> None:
    model = tiny("llama")
    model.lm_head.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="half-way"), frozen(model):  # noqa: PT012
        assert not any(parameter.requires_grad for parameter in model.parameters())
        raise ValueError("half-way")
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["lm_head.weight"]


def test_token_ids_go_where_the_embeddings_are(tiny: Tiny) -> None:
    assert input_device(tiny("llama")) == torch.device("cpu")


@pytest.mark.parametrize(("model_type", "said", "is_"), [("llama", "tuple", "tensor"), ("gptj", "tensor", "tuple")])
def test_a_wrong_word_on_what_blocks_return_is_named(model_type: str, said: str, is_: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    family = dataclasses.replace(Anatomy.of(model).family, block_returns=said)  # type: ignore[arg-type]
    anatomy = unchecked(model, family)
    with pytest.raises(AnatomyError, match=f'describe the family with block_returns="{is_}"'):
        hidden_states_entering(model, anatomy, torch.ones(1, 3, dtype=torch.long), layer=2)
    assert all("forward" not in block.__dict__ for block in anatomy.blocks(model))
