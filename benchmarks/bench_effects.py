"""What the effects of all components of all matrices cost, beside one plain forward and backward pass; SVDs apart."""

import functools
from collections.abc import Callable

import torch
from torch import nn

import strop
from common import medians_in_turn, write_result
from strop.anatomy import logits_at
from strop.linalg import DecompositionCache
from strop.scoring import Scorer
from strop.searching import EffectPlan, measure_effects

MODEL, TASK, EXAMPLES, RUNS = "smollm2-135m", "world-facts", 200, 3
PLANS = {
    "zero, consistency": EffectPlan(counterfactual="zero", reduction="consistency"),
    "roll, max": EffectPlan(counterfactual="roll", reduction="max"),
    "mean, sum": EffectPlan(counterfactual="mean", reduction="sum"),
}


def forward_and_backward(scorer: Scorer, *, weights: bool) -> Callable[[], None]:
    """Return a plain pass over the same batches: loss at the scored positions, backward, all gradients dropped."""

    def run() -> None:
        model = scorer.model
        model.requires_grad_(weights)
        for batch in scorer.batches:
            embeddings = model.get_input_embeddings()
            handle = embeddings.register_forward_hook(lambda *call: call[-1].requires_grad_())
            logits = logits_at(model, scorer.anatomy, batch.input_ids, batch.rows, batch.columns)
            handle.remove()
            torch.autograd.backward(nn.functional.cross_entropy(logits.float(), batch.targets))
            model.zero_grad(set_to_none=True)

    return run


def main() -> None:
    """Time everything in turn, several times over, so that a noisy moment hits all alike."""
    model, tokenizer = strop.load(MODEL)
    task = strop.load_task(TASK)
    scorer = Scorer(model, tokenizer, task.examples("train", limit=EXAMPLES), task.score, fewest=2)
    sites = scorer.anatomy.sites()
    cache = DecompositionCache()
    held = {site: cache.decompose(scorer.anatomy.read_weight(model, site)) for site in sites}
    actions: dict[str, Callable[[], object]] = {
        "forward and backward": forward_and_backward(scorer, weights=True),
        "forward and backward, weights frozen": forward_and_backward(scorer, weights=False),
    }
    for name, plan in PLANS.items():
        actions[name] = functools.partial(
            measure_effects, scorer, sites, decompose=cache.decompose, plan=plan, decompositions=held.__getitem__
        )
    medians = medians_in_turn(actions, runs=RUNS)
    write_result(
        "effects",
        {
            "model": MODEL,
            "matrices": len(sites),
            "components": sum(found.singular_values.shape[0] for found in held.values()),
            "examples": EXAMPLES,
            "tokens": scorer.tokens,
            "threads": torch.get_num_threads(),
            "median_seconds": {name: round(median, 3) for name, median in medians.items()},
            "times_a_forward_and_backward": {
                name: round(medians[name] / medians["forward and backward"], 2) for name in PLANS
            },
            "times_one_with_weights_frozen": {
                name: round(medians[name] / medians["forward and backward, weights frozen"], 2) for name in PLANS
            },
        },
    )


if __name__ == "__main__":
    main()
