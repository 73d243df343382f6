"""What edits of hidden states cost: a training step, the reuse of what no edit changes, generation, the frames, memory."""

import gc
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal
from transformers import PreTrainedModel

import strop
from common import seconds_of, write_result
from strop.anatomy import Anatomy, hidden_states_made_by, logits_at
from strop.interventions import Positions, attach_interventions, prompt_lengths
from strop.linalg import orthonormal_rows
from strop.training import TrainPlan

MODEL, BATCH, TOKENS, ANSWER, RANK, NEW_TOKENS = "smollm2-135m", 8, 64, 8, 8, 64
UPPER = tuple(range(20, 30))
RUNS = 7
POSITIONS = "f7+l7"


class Steps:
    """A batch of random tokens, and the steps that are timed on it."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.anatomy = model, Anatomy.of(model)
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(10, model.config.vocab_size, (BATCH, TOKENS), generator=generator)
        self.rows = torch.arange(BATCH).repeat_interleave(ANSWER)
        self.columns = torch.arange(TOKENS - ANSWER - 1, TOKENS - 1).repeat(BATCH)
        self.prompts = torch.full((BATCH,), TOKENS - ANSWER)

    def loss(self, *, start: int = 0, state: Tensor | None = None) -> Tensor:
        """Return the loss of the answer tokens, from a block on, as training computes it."""
        with prompt_lengths(self.prompts):
            logits = logits_at(
                self.model,
                self.anatomy,
                self.ids,
                self.rows,
                self.columns,
                start=start,
                state=state,
                raw=state is not None,
            )
        return nn.functional.cross_entropy(logits.float(), self.ids[self.rows, self.columns + 1])

    def plain(self) -> None:
        """Run the frozen model forward and its gradients back to the first block, as any learned input would need."""
        handle = self.model.get_input_embeddings().register_forward_hook(lambda *call: call[-1].requires_grad_())
        torch.autograd.backward(self.loss())
        handle.remove()

    def bare_generate(self) -> None:
        """Generate greedily, always as many tokens."""
        self.model.generate(
            self.ids,
            attention_mask=torch.ones_like(self.ids),
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )


def edited(steps: Steps, layers: tuple[int, ...] | None, *, trainable: bool = True) -> Callable[[], None]:
    """Attach edits and return what takes them off."""
    plan = TrainPlan(rank=RANK, positions=Positions.parse(POSITIONS), init="paper")
    chosen = range(steps.anatomy.layer_count) if layers is None else layers
    edits = [edit for layer in chosen for edit in plan.edits_at(layer)]
    generator = torch.Generator().manual_seed(0)
    tensors = [
        edit.initial_tensors((steps.anatomy.hidden_size,) * 2, init="paper", generator=generator) for edit in edits
    ]
    return attach_interventions(steps.model, edits, tensors=tensors, trainable=trainable).detach


def step_with(steps: Steps, *, start: int = 0, state: Tensor | None = None) -> Callable[[], None]:
    """Return one whole training step of whatever asks for gradients: forward, backward, AdamW."""
    optimiser = torch.optim.AdamW([p for p in steps.model.parameters() if p.requires_grad], lr=1e-4)

    def run() -> None:
        torch.autograd.backward(steps.loss(start=start, state=state))
        optimiser.step()
        optimiser.zero_grad()

    return run


def in_turn(
    actions: dict[str, tuple[Callable[[], Callable[[], None]], Callable[[], Callable[[], None]]]],
) -> dict[str, float]:
    """Time actions one after the other, several times over; each is set up before and taken down after it."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(RUNS + 1):
        for name, (set_up, action) in actions.items():
            take_down = set_up()
            run = action()
            run()  # the first after setting up pays for what is made once
            taken = seconds_of(run)
            take_down()
            if turn:
                seconds[name].append(taken)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def frames() -> dict[str, float]:
    """Time forward and backward through a frame, against torch's parametrisation."""
    raw = torch.randn(RANK, 576, requires_grad=True)
    theirs = orthogonal(nn.Linear(576, RANK, bias=False))
    weights = torch.randn(RANK, 576)

    def through(frame: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: torch.autograd.backward((frame() * weights).sum())

    actions = {
        "CholeskyQR2": through(lambda: orthonormal_rows(raw)),
        "torch's parametrisation": through(lambda: cast(Tensor, theirs.weight)),
    }
    for action in actions.values():
        action()
    return {
        name: round(1000 * statistics.median(seconds_of(action) for _ in range(50)), 3)
        for name, action in actions.items()
    }


def peak_megabytes(kind: str) -> float:
    """Return what training steps add to a process's peak memory, of a process of its own."""
    found = subprocess.run([sys.executable, __file__, kind], capture_output=True, text=True, check=True)
    return float(json.loads(found.stdout.splitlines()[-1]))


def one_step(kind: str) -> None:
    """Take three steps of one kind and print by how much memory peaked above what was held before them."""
    model, _ = strop.load(MODEL)
    model.requires_grad_(False)
    steps = Steps(model)
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(r=RANK, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
        get_peft_model(model, settings)
    elif kind == "loreft":
        edited(steps, None)
    gc.collect()
    run = step_with(steps) if kind != "plain" else steps.plain
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew: loading had one of its own
    for _ in range(3):
        run()
    print((kilobytes("VmHWM") - before) / 1e3)


def kilobytes(name: str) -> int:
    """Return what Linux says of this process's memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def main() -> None:
    """Time everything in turn, several times over, so that a noisy moment hits all alike."""
    model, _ = strop.load(MODEL)
    model.requires_grad_(False)
    steps = Steps(model)
    with prompt_lengths(steps.prompts), torch.no_grad():
        state = hidden_states_made_by(model, steps.anatomy, steps.ids, layer=UPPER[0])

    def nothing() -> Callable[[], None]:
        return lambda: None

    medians = in_turn(
        {
            "plain forward and backward": (nothing, lambda: steps.plain),
            "step, all layers": (lambda: edited(steps, None), lambda: step_with(steps)),
            "step, layers 20-29": (lambda: edited(steps, UPPER), lambda: step_with(steps)),
            "step, layers 20-29, prefix reused": (
                lambda: edited(steps, UPPER),
                lambda: step_with(steps, start=UPPER[0] + 1, state=state),
            ),
            "generate": (nothing, lambda: steps.bare_generate),
            "generate, edited": (lambda: edited(steps, None, trainable=False), lambda: steps.bare_generate),
        }
    )
    kinds = ["plain", "loreft", *(["lora"] if find_spec("peft") else [])]
    write_result(
        "reft_speed",
        {
            "model": MODEL,
            "batch": [BATCH, TOKENS],
            "answer_tokens": ANSWER,
            "rank": RANK,
            "positions": POSITIONS,
            "threads": torch.get_num_threads(),
            "median_seconds": {name: round(median, 4) for name, median in medians.items()},
            "step_over_plain": round(medians["step, all layers"] / medians["plain forward and backward"], 3),
            "prefix_reuse_faster_by": round(
                medians["step, layers 20-29"] / medians["step, layers 20-29, prefix reused"], 2
            ),
            "generate_over_bare": round(medians["generate, edited"] / medians["generate"], 3),
            "frame_milliseconds": frames(),
            "peak_megabytes_of_steps": {kind: round(peak_megabytes(kind)) for kind in kinds},
        },
    )


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else one_step(sys.argv[1])
