"""What learning weights and keeping to the base cost: a step of the spectrum, of biases, and of LoReFT with and without keeping.

A step is compared with the frozen model's forward and backward pass on the same batch; what is kept to the base with the same
step without. Each is timed in turn, and medians are written down.
"""

import torch

import strop
from bench_reft_speed import Steps, in_turn, step_with
from common import write_result
from strop.anatomy import Anatomy, MatrixType, editable_shapes, hidden_states_made_by
from strop.checkpoints import identify
from strop.interventions import LowRankEdit, Positions, attach_interventions, prompt_lengths
from strop.linalg import DecompositionCache
from strop.progress import SILENT
from strop.proving import texts_beside_drift
from strop.training import TrainPlan
from strop.training.keep import KeepToBase

MODEL, UPPER = "smollm2-135m", tuple(range(15, 30))
TEXTS = (1, 2, 4)
"""How many each pass is kept to."""


def attached(steps: Steps, plan: TrainPlan) -> object:
    """Put on what a plan of weights learns, and return what takes it off."""
    shapes = editable_shapes(steps.model, steps.anatomy, layers=plan.layers, matrix_types=plan.matrix_types)
    edits = [plan.weight_edit_of(site, min(shape)) for site, shape in shapes.items()]
    tensors = [edit.initial_tensors(shape) for edit, shape in zip(edits, shapes.values(), strict=True)]
    decompose = DecompositionCache().decompose
    return attach_interventions(steps.model, edits, tensors=tensors, decompose=decompose, trainable=True).detach


def loreft(steps: Steps) -> object:
    """Put on LoReFT in the upper half, and return what takes it off."""
    plan = TrainPlan(rank=8, positions=Positions.parse("f7+l7"))
    edits: list[LowRankEdit] = [edit for layer in UPPER for edit in plan.edits_at(layer)]
    size = steps.anatomy.hidden_size
    generator = torch.Generator().manual_seed(0)
    tensors = [edit.initial_tensors((size, size), init="identity", generator=generator) for edit in edits]
    return attach_interventions(steps.model, edits, tensors=tensors, trainable=True).detach


def main() -> None:
    """Time everything in turn, several times over."""
    model, tokenizer = strop.load(MODEL)
    model.requires_grad_(False)
    steps, anatomy = Steps(model), Anatomy.of(model)
    texts = texts_beside_drift(model, tokenizer, fingerprint=identify(model).fingerprint, count=16)
    keepers = {count: KeepToBase(model, anatomy, texts, weight=10.0, per_pass=count) for count in TEXTS}
    lowest = TrainPlan().edits_at(UPPER[0])[0].site
    for keeper in keepers.values():
        keeper.keep_below(lowest, budget_bytes=2**30, progress=SILENT)
    with prompt_lengths(steps.prompts), torch.no_grad():
        state = hidden_states_made_by(model, anatomy, steps.ids, layer=UPPER[0])

    def kept(keeper: KeepToBase) -> object:
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

        def run() -> None:
            torch.autograd.backward(steps.loss(start=UPPER[0] + 1, state=state) + keeper.cost())
            optimiser.step()
            optimiser.zero_grad()

        return run

    actions: dict[str, object] = {
        "plain forward and backward": (lambda: lambda: None, lambda: steps.plain),
        "spectrum": (lambda: attached(steps, TrainPlan(method="spectrum")), lambda: step_with(steps)),
        "spectrum, 64 largest": (
            lambda: attached(steps, TrainPlan(method="spectrum", top=64)),
            lambda: step_with(steps),
        ),
        "bias": (
            lambda: attached(steps, TrainPlan(method="bias", matrix_types=(MatrixType.DOWN,))),
            lambda: step_with(steps),
        ),
        "loreft, prefix reused": (lambda: loreft(steps), lambda: step_with(steps, start=UPPER[0] + 1, state=state)),
        **{
            f"loreft kept, {count} texts": (lambda: loreft(steps), lambda keeper=keeper: kept(keeper))
            for count, keeper in keepers.items()
        },
    }
    medians = in_turn(actions)  # type: ignore[arg-type]
    plain, free = medians["plain forward and backward"], medians["loreft, prefix reused"]
    write_result(
        "gains_speed",
        {
            "model": MODEL,
            "batch": list(steps.ids.shape),
            "threads": torch.get_num_threads(),
            "median_seconds": {name: round(median, 4) for name, median in medians.items()},
            "over_plain": {
                name: round(medians[name] / plain, 2) for name in ("spectrum", "spectrum, 64 largest", "bias")
            },
            "kept_over_free": {str(count): round(medians[f"loreft kept, {count} texts"] / free, 2) for count in TEXTS},
        },
    )


if __name__ == "__main__":
    main()
