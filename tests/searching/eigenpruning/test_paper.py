"""What is pruned and what it leaves behind, by hand: the published settings, and the mean bias."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from strop.anatomy import MatrixType, WeightSite
from strop.interventions import SingularValuePruning
from strop.proving import RunOutcome
from strop.searching import PrunePlan
from strop.searching.eigenpruning import prune
from strop.tasks import Example, Task

LAYERS, SIZE = range(3), 8
HEADS = {"llama": 2, "gpt2": 4, "gpt_neox": 4}
"""Of the keys."""


class Keys(NamedTuple):
    """One head's keys: the module that makes them, and which of its outputs they are."""

    module: Any
    outputs: slice

    @property
    def matrix(self) -> Tensor:
        """(out, in), a view."""
        weight = self.module.weight.detach()
        return (weight if isinstance(self.module, torch.nn.Linear) else weight.T)[self.outputs]


def keys_of(family: str, model: Any, layer: int, head: int) -> Keys:
    match family:
        case "llama":
            return Keys(model.model.layers[layer].self_attn.k_proj, slice(SIZE * head, SIZE * (head + 1)))
        case "gpt2":  # queries, then keys, then values
            start = 32 + SIZE * head
            return Keys(model.transformer.h[layer].attn.c_attn, slice(start, start + SIZE))
        case _:  # of each head its queries, keys and values
            start = 3 * SIZE * head + SIZE
            return Keys(model.gpt_neox.layers[layer].attention.query_key_value, slice(start, start + SIZE))


def texts_of(tokenizer: Any, examples: Sequence[Example]) -> Tensor:
    """What the model reads and, last, what it should say, (examples, tokens)."""
    return torch.tensor([tokenizer(example.prompt + example.answer)["input_ids"] for example in examples])


def losses_of(model: Any, texts: Tensor, answer_tokens: int) -> Tensor:
    """Mean −log p of the answer's tokens, (examples,)."""
    log_p = model(texts[:, :-1]).logits.log_softmax(-1)[:, -answer_tokens:]
    wanted: Tensor = log_p.gather(-1, texts[:, -answer_tokens:, None])
    return -wanted[..., 0].mean(1)


def inputs_and_gradients(
    model: Any, modules: Sequence[Any], texts: Tensor, answer_tokens: int
) -> dict[Any, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Of each module its input and the gradient at its output, (examples, tokens, features)."""
    inputs: dict[Any, Tensor] = {}
    outputs: dict[Any, Tensor] = {}

    def keep(module: Any, arguments: Any, output: Tensor) -> None:
        inputs[module] = arguments[0].detach()
        output.retain_grad()
        outputs[module] = output

    handles = [module.register_forward_hook(keep) for module in modules]
    losses_of(model, texts, answer_tokens).sum().backward()
    for handle in handles:
        handle.remove()
    model.zero_grad()
    return {module: (inputs[module].double().numpy(), outputs[module].grad.double().numpy()) for module in modules}


def guide_of(task: Task, plan: PrunePlan) -> list[Example]:
    train = task.examples("train", limit=plan.effect_examples)
    return [train[index] for index in np.random.default_rng(plan.seed).permutation(len(train))]


def answer_tokens_of(tokenizer: Any, task: Task) -> int:
    (count,) = {len(tokenizer(e.answer)["input_ids"]) for split in task.splits.values() for e in split}
    return count


def pruned(found: RunOutcome) -> dict[tuple[int, int], tuple[int, ...]]:
    edits = found.recipe.interventions
    assert all(isinstance(edit, SingularValuePruning) and edit.site.matrix_type == "key" for edit in edits)
    return {(edit.site.layer, edit.site.head): edit.removed for edit in edits}  # type: ignore[union-attr,misc]


@pytest.mark.parametrize("family", HEADS)
def test_the_published_settings_do_what_the_paper_describes(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, family: str
) -> None:
    """A fifth of all keys' values, those whose largest effect is least; their mean output at each position stays."""
    model, plan = answering(family), dataclasses.replace(PrunePlan.paper(), patience=1)
    count = answer_tokens_of(small_tokenizer, even)
    texts = texts_of(small_tokenizer, guide_of(even, plan))
    keys = {(layer, head): keys_of(family, model, layer, head) for layer in LAYERS for head in range(HEADS[family])}
    seen = inputs_and_gradients(model, [key.module for key in dict(keys).values()], texts, count)
    scores: dict[tuple[int, int, int], float] = {}
    for (layer, head), key in keys.items():
        inputs, gradients = seen[key.module]
        u, s, vh = np.linalg.svd(key.matrix.double().numpy(), full_matrices=False)
        changes = np.roll(inputs, 1, axis=0) - inputs
        effects = (changes @ vh.T) * s * (gradients[..., key.outputs] @ u)
        scores |= {(layer, head, value): effects[..., value].max() for value in range(SIZE)}
    chosen = sorted(scores, key=scores.__getitem__)[: round(0.2 * len(scores))]
    by_key = {key: tuple(sorted(v for *of, v in chosen if tuple(of) == key)) for key in keys}

    found = prune(model, small_tokenizer, even, plan)
    _, trial = found.trials  # "no edit" and the one step there is
    biases: dict[tuple[int, int], Tensor] = {}
    originals, handles = {key.module: key.module.weight.detach().clone() for key in keys.values()}, []
    for place, values in by_key.items():
        u, s, vh = np.linalg.svd(keys[place].matrix.double().numpy(), full_matrices=False)
        gone = (u[:, values] * s[list(values)]) @ vh[list(values)]
        biases[place] = torch.from_numpy(seen[keys[place].module][0].mean(0) @ gone.T).float()
        keys[place].matrix.sub_(torch.from_numpy(gone))

        def leave_behind(_: Any, __: Any, output: Tensor, place: tuple[int, int] = place) -> Tensor:
            shifted = output.clone()
            shifted[..., keys[place].outputs] += biases[place]
            return shifted

        handles.append(keys[place].module.register_forward_hook(leave_behind))
    with torch.no_grad():
        by_hand = float(losses_of(model, texts_of(small_tokenizer, even.examples("select")), count).mean())
    for handle in handles:
        handle.remove()
    for module, original in originals.items():
        module.weight.data.copy_(original)
    assert trial.loss == pytest.approx(by_hand, rel=1e-5)
    assert trial.loss != pytest.approx(found.trials[0].loss, rel=1e-5)
    if trial.merit > found.trials[0].merit:
        assert pruned(found) == {place: values for place, values in by_key.items() if values}
        for edit, tensors in zip(found.recipe.interventions, found.recipe.tensors, strict=True):
            expected = biases[edit.site.layer, edit.site.head]  # type: ignore[index]
            torch.testing.assert_close(tensors["bias"], expected, atol=1e-5, rtol=1e-4)
    else:
        assert found.recipe.interventions == ()
        assert family == "llama"


def test_the_mean_bias_is_what_the_removed_part_makes_of_the_mean_input(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task
) -> None:
    model = answering()
    plan = PrunePlan(bias="mean", matrix_types=(MatrixType.DOWN,), fractions=(0.2,), iterate=1)
    texts = texts_of(small_tokenizer, guide_of(even, plan))
    seen = inputs_and_gradients(model, [block.mlp.down_proj for block in model.model.layers], texts, 1)
    found = prune(model, small_tokenizer, even, plan)
    assert found.recipe.interventions
    for edit, tensors in zip(found.recipe.interventions, found.recipe.tensors, strict=True):
        assert isinstance(edit, SingularValuePruning)
        assert edit.site == WeightSite(edit.site.layer, MatrixType.DOWN)
        module = model.model.layers[edit.site.layer].mlp.down_proj
        u, s, vh = np.linalg.svd(module.weight.detach().double().numpy(), full_matrices=False)
        values = list(edit.removed)
        expected = ((u[:, values] * s[values]) @ vh[values]) @ seen[module][0].mean((0, 1))
        torch.testing.assert_close(tensors["bias"].double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)
