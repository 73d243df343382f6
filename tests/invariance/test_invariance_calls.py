"""Which tokens are edited belongs to a call: threads, calls within calls, replicas and recomputed blocks do not meet."""

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from transformers import LogitsProcessorList, StoppingCriteriaList

from strop.anatomy import Anatomy, MatrixType, Stream, StreamSite, WeightSite
from strop.errors import InterventionError
from strop.interventions import RankReduction, applied_interventions, prompt_lengths

Maker = Callable[..., Any]
SETTINGS = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
EXACT = {"atol": 2e-6, "rtol": 2e-6}


@pytest.fixture(autouse=True)
def threads_that_change_places_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with torch.set_grad_enabled(False):
        yield
    sys.setswitchinterval(before)


def generated(model: Any, batch: dict[str, Tensor], **more: Any) -> Tensor:
    """The logits of every generated token."""
    return torch.stack(model.generate(**batch, **SETTINGS, **more).logits, 1)


def labelled(model: Any, batch: dict[str, Tensor]) -> Tensor:
    found: Tensor = model(**batch).logits
    return found


def in_threads(*tasks: Callable[[], Any]) -> list[Any]:
    """What each task returned, or raised."""
    found: list[Any] = [None] * len(tasks)
    start = threading.Barrier(len(tasks))

    def work(index: int) -> None:
        try:
            start.wait(30)
            found[index] = tasks[index]()
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("model_type", "count", "text"),
    [
        ("llama", 2, "all"),
        ("llama", 4, "f2+l3"),
        ("gpt2", 2, "f2+l3"),
        ("gpt2", 4, "all"),
    ],  # each pair of settings once
)
def test_threads_that_share_a_model_get_each_its_own_answer_every_time(
    model_type: str, count: int, text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    chosen = [[0], [1, 2], [3], [2, 0, 1]][:count]
    prompts = [rows.batch("left", rows=own, answers=False) for own in chosen]
    answers = [rows.batch("left", rows=own) for own in chosen]
    with applied_interventions(model, [RankReduction(WeightSite(1, MatrixType.DOWN), rank_fraction=0.25)]):
        attachment = put_on(model, text)
        expected = [
            (generated(model, prompt), labelled(model, answer)) for prompt, answer in zip(prompts, answers, strict=True)
        ]

        def work(index: int) -> bool:
            right = True
            for _ in range(40 // count):
                right &= torch.equal(generated(model, prompts[index]), expected[index][0])
                right &= torch.equal(labelled(model, answers[index]), expected[index][1])
            return right

        assert in_threads(*(lambda index=index: work(index) for index in range(count))) == [True] * count
        attachment.detach()


def test_a_generation_goes_on_as_it_began_though_another_thread_generates_between_two_of_its_steps(
    exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact("llama")
    put_on(model, "prompt")
    short, long = (rows.batch(rows=[row], answers=False) for row in (0, 1))
    expected, elsewhere = generated(model, short), generated(model, long)
    found: list[Tensor] = []

    def between(*_: Any, **__: Any) -> Tensor:
        found.extend(in_threads(lambda: generated(model, long)))
        return torch.zeros(1, dtype=torch.bool)

    assert torch.equal(generated(model, short, stopping_criteria=StoppingCriteriaList([between])), expected)
    assert len(found) == 3
    assert all(torch.equal(one, elsewhere) for one in found)


# Calls within calls


def meanwhile(model: Any, batch: dict[str, Tensor], inner: Callable[[], Any]) -> tuple[Tensor, list[Any]]:
    """What a model generates, and what something else returned, or raised, between its steps."""
    found: list[Any] = []

    def processor(_ids: Tensor, scores: Tensor) -> Tensor:
        try:
            found.append(inner())
        except InterventionError as error:
            found.append(error)
        return scores

    return generated(model, batch, logits_processor=LogitsProcessorList([processor])), found


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_generation_within_a_generation_has_its_own_prompt(
    use_cache: bool, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model, other = exact("llama"), exact("gpt2")
    put_on(model, "f2+l3")
    put_on(other, "l1", seed=1)
    batch, within = rows.batch(rows=[1], answers=False), rows.batch("left", rows=[0, 3], answers=False)
    batch = {**batch, "use_cache": use_cache}
    expected = generated(model, batch)
    for inner in (model, other):
        alone = generated(inner, within)
        found, answers = meanwhile(model, batch, lambda inner=inner: generated(inner, within))
        assert torch.equal(found, expected)
        assert len(answers) == 3
        assert all(torch.equal(answer, alone) for answer in answers)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_plain_call_within_a_generation_is_no_step_of_it(
    use_cache: bool, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact("llama")
    put_on(model, "f2+l3")
    batch = {**rows.batch(rows=[3], answers=False), "use_cache": use_cache}
    expected, alone = generated(model, batch), labelled(model, rows.batch("left"))
    length = batch["input_ids"].shape[1]
    ids = torch.tensor([rows.prompts[1]])  # longer than the prompt
    same_width = {"input_ids": ids[:, :length], "attention_mask": torch.ones(1, length, dtype=torch.long)}
    with prompt_lengths([4]):
        declared = model(input_ids=ids).logits

    def with_lengths() -> Tensor:
        with prompt_lengths([4]):
            logits: Tensor = model(input_ids=ids).logits
        return logits

    for inner, right in ((lambda: labelled(model, rows.batch("left")), alone), (with_lengths, declared)):
        found, answers = meanwhile(model, batch, inner)
        assert torch.equal(found, expected)
        assert all(torch.equal(answer, right) for answer in answers)
    for arguments in (
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        {"input_ids": ids},
        same_width,
        {"input_ids": batch["input_ids"][:, :3]},
    ):
        found, answers = meanwhile(model, batch, lambda arguments=arguments: model(**arguments))
        assert torch.equal(found, expected)
        assert len(answers) == 3
        assert all("needs to know where prompts end" in str(answer) for answer in answers)


def test_a_plain_call_within_a_generation_where_every_token_is_edited_is_as_it_is_alone(
    exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact("llama")
    put_on(model, "all")
    batch, other = rows.batch(rows=[3], answers=False), rows.batch("left", answers=False)
    expected, alone = generated(model, batch), labelled(model, other)
    found, answers = meanwhile(model, batch, lambda: labelled(model, other))
    assert torch.equal(found, expected)
    assert all(torch.equal(answer, alone) for answer in answers)


def test_a_call_within_a_pass_leaves_the_pass_its_tokens(exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("llama")
    put_on(model, "f2+l3")
    batch, other = rows.batch("left"), rows.batch(rows=[1])
    expected, alone = labelled(model, batch), labelled(model, other)
    found: list[Tensor] = []

    def call(*_: Any) -> None:
        if not found:
            found.append(alone)  # the call within is not to call again
            found.append(labelled(model, other))

    handle = model.model.layers[1].register_forward_pre_hook(call)
    assert torch.equal(labelled(model, batch), expected)
    handle.remove()
    assert torch.equal(found[1], alone)


# After an interrupt


def test_after_an_interrupt_a_block_belongs_to_no_pass(exact: Maker, put_on: Maker, rows: Any) -> None:
    model, batch = exact("gpt2"), rows.batch()
    put_on(model, "f2+l3")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = model.transformer.h[2].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(**batch)
    handle.remove()
    with pytest.raises(InterventionError, match="A block was called by itself"):
        model.transformer.h[0](torch.zeros(*batch["input_ids"].shape, 32, dtype=torch.float64))
    with pytest.raises(InterventionError, match="needs to know where prompts end"):
        model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


# Replicas


def replica_of(module: nn.Module) -> nn.Module:
    """What DataParallel makes of a model for one of its threads, on the same device."""
    copied = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        copied._modules[name] = replica_of(child) if child is not None else None
    for name, parameter in module._parameters.items():
        setattr(copied, name, parameter * 1 if parameter is not None else None)
    return copied


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gptj"])
def test_replicas_edit_each_the_tokens_of_its_own_rows(
    model_type: str, trainable: bool, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact(model_type)
    attachment = put_on(model, "f2+l3", trainable=trainable)
    batches = [rows.batch("left", rows=own) for own in ([0, 1], [2, 3])]
    expected = [labelled(model, batch) for batch in batches]

    def call(batch: dict[str, Tensor]) -> Tensor:
        with torch.enable_grad():
            logits = labelled(replica_of(model), batch)
            if trainable:
                logits.sum().backward()
        return logits.detach()

    found = in_threads(*(lambda batch=batch: call(batch) for batch in batches))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    if trainable:
        together = [parameter.grad.clone() for edit in attachment.edits for parameter in edit.parameters()]
        model.zero_grad()
        with torch.enable_grad():
            sum(labelled(model, batch).sum() for batch in batches).backward()
        alone = [parameter.grad for edit in attachment.edits for parameter in edit.parameters()]
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other, **EXACT)


def test_an_edit_reaches_a_replica_on_another_device_and_stays_where_it_is(exact: Maker, put_on: Maker) -> None:
    attachment = put_on(exact("llama"), "all", [(StreamSite(0), "noreft")], trainable=True)
    edit, parameters = attachment.states[0], list(attachment.edits[0].parameters())
    assert edit.on(torch.device("cpu"), replica=True) is edit.module
    with torch.enable_grad():
        elsewhere: Any = edit.on(torch.device("meta"), replica=True)
    moved = elsewhere.args[1]
    assert {tensor.device.type for tensor in moved.values()} == {"meta"}
    assert all(tensor.requires_grad and tensor.grad_fn is not None for tensor in moved.values())  # gradients come back
    assert elsewhere.args[0] is not edit.module
    assert {parameter.device.type for parameter in parameters} == {"cpu"}
    assert all(one is other for one, other in zip(edit.module.parameters(), parameters, strict=True))


def test_a_block_in_another_model_is_not_left_unedited_in_silence(exact: Maker, put_on: Maker, rows: Any) -> None:
    model, other = exact("llama"), exact("llama")
    other.model.layers[1] = model.model.layers[1]
    put_on(model, "all")
    with pytest.raises(InterventionError, match="A block was called by itself"):
        labelled(other, rows.batch())


# Blocks that run again inside backward


@pytest.mark.parametrize("reentrant", [False, True])
def test_blocks_run_again_in_another_thread_edit_the_tokens_of_their_own_pass(
    reentrant: bool, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model = exact("llama").train()
    sites = [(StreamSite(0, Stream.MLP), "loreft"), (StreamSite(2, Stream.ATTENTION), "direft")]
    attachment = put_on(model, "f2+l3", sites, trainable=True)
    batches = [rows.batch("left", rows=[0, 1]), rows.batch("left", rows=[2, 3])]
    parameters = [parameter for edit in attachment.edits for parameter in edit.parameters()]

    def step(index: int) -> list[Tensor]:
        with torch.enable_grad():
            loss = model(**batches[index], use_cache=False).loss
            other = model(**batches[1 - index], use_cache=False).loss  # the latest pass is another one
            assert other.requires_grad
            model.zero_grad()
            loss.backward()
        return [parameter.grad.clone() for parameter in parameters]

    expected = [step(0), step(1)]
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    for index in (0, 1):
        (found,) = in_threads(lambda index=index: step(index))
        for one, other in zip(found, expected[index], strict=True):
            torch.testing.assert_close(one, other, **EXACT)
    with torch.enable_grad():  # forward here, backward in another thread, as autograd does it for a GPU
        losses = [model(**batch, use_cache=False).loss for batch in batches]
    for index, loss in enumerate(losses):
        model.zero_grad()
        assert in_threads(loss.backward) == [None]
        for parameter, other in zip(parameters, expected[index], strict=True):
            torch.testing.assert_close(parameter.grad, other, **EXACT)


def test_modules_run_again_by_another_checkpointing_are_refused(exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("llama").train()
    put_on(model, "f2+l3", [(StreamSite(1, Stream.MLP), "loreft")], trainable=True)
    mlp = Anatomy.of(model).blocks(model)[1].mlp
    own = mlp.forward
    mlp.forward = lambda states: torch.utils.checkpoint.checkpoint(own, states, use_reentrant=False)
    with torch.enable_grad():
        loss = model(**rows.batch(), use_cache=False).loss
        with pytest.raises(
            InterventionError, match="was run again inside backward.*use the model's own gradient checkpointing"
        ):
            loss.backward()
