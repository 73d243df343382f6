"""The published LASER procedure against Strop's search, in one process, on the same 300 prompts of the real SmolLM2-135M.

The published procedure (the paper's repository): for each intervention a copy of the model, a randomised decomposition
of the one matrix (torch.svd_lowrank with q = rank and two power iterations), then one example at a time, the answer
scored from logits at all positions. It is timed on a sample of interventions spread over layers, types and ranks; its
full sweep is 210 matrices x 7 ranks. Strop's side is a whole gradient search, decompositions made anew included.

The second question is what the speed costs: an exhaustive look at layers 24-29 (all 7 types, 7 ranks) picks its best
single edit on the same 300 prompts, and both choices are measured on the held-out examples.
"""

import argparse
import copy
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import strop
from common import seconds_of, write_result
from strop.anatomy import Anatomy, WeightSite
from strop.linalg import DecompositionCache, rank_for_fraction
from strop.proving import RunOutcome
from strop.runs import peak_rss_bytes
from strop.scoring import Scorer
from strop.searching import SearchPlan
from strop.tasks import Example, Task

RANK_FRACTIONS = (0.9, 0.8, 0.6, 0.2, 0.1, 0.05, 0.01)
"""The seven of the paper's table 5."""
PROMPTS = 300
LATE_LAYERS = tuple(range(24, 30))


def published_intervention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: tuple[Example, ...],
    site: WeightSite,
    share: float,
) -> float:
    """Evaluate one intervention as the published scripts do; return the accuracy."""
    edited = copy.deepcopy(model)
    parameter = Anatomy.of(edited).parameter(edited, site)
    matrix = parameter.data
    u, s, v = torch.svd_lowrank(matrix.float(), q=rank_for_fraction(share, (matrix.shape[0], matrix.shape[1])), niter=2)
    parameter.data = (u @ torch.diag(s) @ v.T).to(matrix.dtype)
    right = 0
    with torch.no_grad():
        for example in examples:
            prompt = tokenizer(example.prompt, return_tensors="pt").input_ids
            whole = tokenizer(example.prompt + example.answer, return_tensors="pt").input_ids
            log_probabilities = torch.log_softmax(edited(whole).logits[0], dim=-1)
            predicted = log_probabilities[prompt.shape[1] - 1 : -1].argmax(-1)
            right += int(torch.equal(predicted, whole[0, prompt.shape[1] :]))
    return right / len(examples)


def time_published(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, count: int
) -> dict[str, Any]:
    """Time a sample of interventions spread over the whole grid."""
    anatomy = Anatomy.of(model)
    grid = [(site, share) for site in anatomy.sites() for share in RANK_FRACTIONS]
    sample = [grid[round((index + 0.5) * len(grid) / count)] for index in range(count)]
    examples = task.examples("select", limit=PROMPTS)
    seconds = []
    for site, share in sample:
        seconds.append(seconds_of(partial(published_intervention, model, tokenizer, examples, site, share)))
        print(f"published: {site} at {share:.0%}: {seconds[-1]:.1f} s", flush=True)
    median = sorted(seconds)[len(seconds) // 2]
    return {
        "interventions_timed": count,
        "seconds_per_intervention": {"min": min(seconds), "median": median, "max": max(seconds)},
        "interventions_of_full_sweep": len(grid),
        "seconds_of_full_sweep": median * len(grid),
    }


def run_search(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, plan: SearchPlan, cache: Path
) -> tuple[RunOutcome, float]:
    """Run a search with a cache of its own; return its result and its seconds."""
    started = time.perf_counter()
    found = strop.search(
        model, tokenizer, task, plan, options=strop.RunOptions(decompositions=DecompositionCache(cache))
    )
    return found, time.perf_counter() - started


def seconds_per_trial(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task) -> float:
    """Return the time of one whole pass of Strop's scorer, no prefix reused."""
    scorer = Scorer(model, tokenizer, task.examples("select", limit=PROMPTS), task.score)
    scorer.evaluate()
    return sorted(seconds_of(scorer.evaluate) for _ in range(3))[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", type=int, default=6, help="how many published interventions to time")
    parser.add_argument("--test-limit", type=int, default=None, help="held-out examples to measure on")
    options = parser.parse_args()
    model, tokenizer = strop.load("smollm2-135m")
    task = strop.load_task("world-facts-all")
    gradient = SearchPlan(select_limit=PROMPTS, test_limit=options.test_limit)
    exhaustive = SearchPlan(
        strategy="exhaustive",
        layers=LATE_LAYERS,
        rank_fractions=RANK_FRACTIONS,
        select_limit=PROMPTS,
        test_limit=options.test_limit,
    )
    with tempfile.TemporaryDirectory() as scratch:
        found, search_seconds = run_search(model, tokenizer, task, gradient, Path(scratch))
        measured = {"with_cold_cache_and_test": search_seconds, "until_chosen": found.trials[-1].elapsed_seconds}
        peak = peak_rss_bytes()
        print(f"gradient search: {search_seconds:.1f} s, {found.recipe}", flush=True)
        looked, look_seconds = run_search(model, tokenizer, task, exhaustive, Path(scratch))
        print(f"exhaustive look: {look_seconds:.1f} s, {looked.recipe}", flush=True)
    published = time_published(model, tokenizer, task, options.published)
    whole_pass = seconds_per_trial(model, tokenizer, task)
    gains = {name: result.result.comparison["test"].gain for name, result in (("ours", found), ("look", looked))}
    model_bytes = sum(parameter.nbytes for parameter in model.parameters())
    write_result(
        "laser_search",
        {
            "prompts": PROMPTS,
            "published": published,
            "gradient_search": {
                "seconds": measured,
                "trials": len(found.trials),
                "seconds_per_trial": found.trials[-1].elapsed_seconds / len(found.trials),
                "recipe": found.recipe.describe(),
                "test": found.result.comparison["test"].to_json(),
            },
            "whole_pass_seconds": whole_pass,
            "exhaustive_look": {
                "layers": list(LATE_LAYERS),
                "seconds": look_seconds,
                "trials": len(looked.trials),
                "seconds_per_trial": looked.trials[-1].elapsed_seconds / len(looked.trials),
                "recipe": looked.recipe.describe(),
                "test": looked.result.comparison["test"].to_json(),
            },
            "ratio_full_published_sweep_to_gradient_search": {
                "until_chosen": published["seconds_of_full_sweep"] / measured["until_chosen"],
                "with_held_out_measurement": published["seconds_of_full_sweep"] / search_seconds,
            },
            "ratio_published_intervention_to_our_whole_pass": published["seconds_per_intervention"]["median"]
            / whole_pass,
            "share_of_exhaustive_held_out_gain": gains["ours"] / gains["look"],
            "memory": {
                "model_bytes": model_bytes,
                "peak_rss_bytes_after_gradient_search": peak,
                "peak_above_model_bytes": peak - model_bytes,
            },
        },
    )


if __name__ == "__main__":
    main()
