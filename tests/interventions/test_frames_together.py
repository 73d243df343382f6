"""The frames of all edits that learn are made at once, and those of edits that do not once and for all."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fixtures.low_rank import edit_of, random_tensors
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import strop.interventions.edit_module as edit_room
from strop.anatomy import StreamSite
from strop.errors import DecompositionError
from strop.interventions import Attachment, attach_interventions, prompt_lengths

IDS = torch.arange(1, 22).view(3, 7)
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "item", "_unique2", "masked_select")
"""What a device must be waited for."""


class Counted(TorchDispatchMode):
    """Counts what is asked of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        return sum(self.seen[name] for name in WAITS)


def attached(model: nn.Module, layers: int, *, trainable: bool = True, method: str = "loreft") -> Attachment:
    edits = [edit_of(method, site=StreamSite(layer)) for layer in range(layers)]
    tensors = [random_tensors(edit, 32, seed=edit.site.layer, dtype=torch.float32) for edit in edits]
    return attach_interventions(model, edits, tensors=tensors, trainable=trainable)


def step(model: nn.Module) -> Tensor:
    """Forward and backward, as a training does, and the loss."""
    with prompt_lengths([4, 5, 6]):
        logits = model(IDS).logits
    loss = nn.functional.cross_entropy(logits[:, -1], IDS[:, 0])
    torch.autograd.backward(loss)
    return loss


def counted(model: nn.Module, act: Callable[[nn.Module], object]) -> Counted:
    act(model)  # what is made once is made
    with Counted() as found:
        act(model)
    return found


@pytest.mark.parametrize("method", ["loreft", "orthonormal_direft"])
def test_a_step_waits_as_often_and_factorises_as_often_at_six_layers_as_at_two(tiny: Any, method: str) -> None:
    found = {}
    for layers in (2, 6):
        model = tiny("llama", num_hidden_layers=layers)
        attached(model, layers, method=method)
        found[layers] = counted(model, step)
    few, many = found[2], found[6]
    assert many.waits == few.waits <= 5
    assert few.seen["linalg_cholesky_ex"] == many.seen["linalg_cholesky_ex"] == 2
    for name in ("linalg_solve_triangular", "linalg_inv_ex", "tril"):
        assert few.seen[name] == many.seen[name]


def test_checkpointed_blocks_make_their_own_and_learn_the_same(tiny: Any) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = tiny("llama", num_hidden_layers=3).train()
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        attachment = attached(model, 3)
        step(model)
        gradients.append([parameter.grad for module in attachment.edits for parameter in module.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_gradients_are_those_of_frames_made_one_by_one(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for together in (True, False):
        if not together:
            monkeypatch.setattr("strop.interventions.editor.frames_together", lambda modules: {})
        model = tiny("llama", num_hidden_layers=4)
        attachment = attached(model, 4)
        loss = step(model)
        found.append([loss, *(own.grad for module in attachment.edits for own in module.parameters())])
    assert len(found[0]) == 1 + 4 * 3
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_edits_of_several_ranks_and_methods_are_each_their_own(tiny: Any) -> None:
    model = tiny("llama", num_hidden_layers=4)
    edits = [
        edit_of("loreft", 4, site=StreamSite(0)),
        edit_of("loreft", 2, site=StreamSite(1)),
        edit_of("direft", 4, site=StreamSite(2)),
        edit_of("consreft", 4, site=StreamSite(3)),
    ]
    tensors = [random_tensors(edit, 32, seed=index, dtype=torch.float32) for index, edit in enumerate(edits)]
    modules = attach_interventions(model, edits, tensors=tensors, trainable=True).edits
    made = edit_room.frames_together(modules)
    assert set(made) == {modules[0], modules[1], modules[3]}
    for module, (rows, _) in made.items():
        torch.testing.assert_close(rows, module.basis_rows(), rtol=1e-6, atol=1e-7)


def test_dependent_rows_are_refused_in_a_step_too_and_leave_the_model_ready_for_another(tiny: Any) -> None:
    model = tiny("llama", num_hidden_layers=3)
    attachment = attached(model, 3)
    basis = next(attachment.edits[1].get_submodule("basis").parameters())
    whole = basis.detach().clone()
    with torch.no_grad():
        basis[3] = basis[0]
    with pytest.raises(DecompositionError, match=r"^The 4 rows of a learned subspace .* lower learning rate\.$"):
        step(model)
    with torch.no_grad():
        basis.copy_(whole)
    assert torch.isfinite(step(model))


def read(model: nn.Module) -> Tensor:
    with torch.no_grad(), prompt_lengths([4, 5, 6]):
        logits: Tensor = model(IDS).logits
    return logits


def test_what_does_not_learn_is_made_orthonormal_once(tiny: Any) -> None:
    model = tiny("llama", num_hidden_layers=3)
    attached(model, 3, trainable=False)
    assert not counted(model, read).seen["linalg_cholesky_ex"]


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("change", ["loaded", "changed", "replaced"])
def test_other_numbers_are_made_orthonormal_anew(tiny: Any, change: str, trainable: bool) -> None:
    model = tiny("llama", num_hidden_layers=3)
    attachment = attached(model, 3, trainable=trainable)
    before = read(model)
    assert torch.equal(read(model), before)
    if change == "loaded":
        attachment.load([random_tensors(entry, 32, seed=9, dtype=torch.float32) for entry in attachment.interventions])
    for own in (own for module in attachment.edits for own in module.parameters() if change != "loaded"):
        drawn = torch.randn(own.shape, generator=torch.Generator().manual_seed(3))
        if change == "changed":
            with torch.no_grad():
                own.copy_(drawn)
        else:
            own.data = drawn
    after, fresh = read(model), tiny("llama", num_hidden_layers=3)
    assert not torch.allclose(after, before)
    attach_interventions(fresh, attachment.interventions, tensors=attachment.tensors)
    assert torch.equal(read(fresh), after)


def test_edits_run_in_inference_mode_before_and_after_others(tiny: Any) -> None:
    model = tiny("llama", num_hidden_layers=3)
    attached(model, 3)
    with torch.inference_mode():
        first = read(model)
    assert torch.equal(read(model), first)
    assert torch.isfinite(step(model))
