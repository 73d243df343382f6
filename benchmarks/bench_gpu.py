"""Does every method compute on a GPU what it computes on the CPU, and is a model of seven billion parameters served fast?

python benchmarks/bench_gpu.py [MODEL]      # under eight minutes on an H100; MODEL is a folder or a name
python benchmarks/bench_gpu.py --rehearse   # the same code on the CPU with a tiny model; its times mean nothing
"""

import argparse
import contextlib
import copy
import dataclasses
import functools
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

import strop
from common import write_result
from strop.anatomy import Anatomy, MatrixType, StreamSite, WeightSite
from strop.checkpoints import identify
from strop.interventions import (
    Intervention,
    LowRankEdit,
    LowRankUpdate,
    OutputBias,
    Positions,
    RankReduction,
    SingularValuePruning,
    SpectrumScaling,
    attach_interventions,
    prompt_lengths,
)
from strop.linalg import DecompositionCache, decompose
from strop.progress import SILENT
from strop.proving import DriftText, RunOptions
from strop.scoring import Scorer
from strop.searching import SearchPlan, measure_effects

RANK, POSITIONS = 8, "f7+l7"
SHORT, LONG = (16, 13), (16, 256)
SELECT, TEST, NEW_TOKENS, RUNS = 300, 100, 32, 7
MOST_SECONDS = 460
"""After which no further thing is begun."""
LIMITS = {
    "identity, first": 2.0,
    "identity, again": 2.0,
    "gradient search, cold": 90.0,
    "gradient search, warm": 20.0,
    "loreft step over plain, 16 x 13": 1.5,
    "loreft step over plain, 16 x 256": 1.15,
    "spectrum step over plain, 16 x 13": 1.5,
    "spectrum step over plain, 16 x 256": 1.15,
    "generation over bare": 1.03,
}
"""Seconds, or ratios, on one H100 with a model of Llama-7B's shape in bfloat16."""
SEVEN_BILLION = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}

EDITS: dict[str, Callable[[WeightSite], Intervention]] = {
    "rank_reduction": lambda site: RankReduction(site, rank_fraction=0.1),
    "pruning": lambda site: SingularValuePruning(site, (0, 2, 5)),
    "spectrum": lambda site: SpectrumScaling(site),
    "bias": lambda site: OutputBias(site),
    "lora": lambda site: LowRankUpdate(site, rank=3, alpha=6),
    "loreft": lambda site: low_rank("loreft", site.layer),
    "direft": lambda site: low_rank("direft", site.layer),
}


@dataclasses.dataclass
class Where:
    """The machine, and how much of everything is done on it."""

    device: torch.device
    rehearsing: bool
    begun: float = dataclasses.field(default_factory=time.perf_counter)

    def seconds(self, action: Callable[[], object]) -> float:
        """Return how long an action takes until the device has done it."""
        self.wait()
        started = time.perf_counter()
        action()
        self.wait()
        return time.perf_counter() - started

    def median(self, action: Callable[[], object]) -> float:
        """Return the median of several times, after one that does not count."""
        action()
        return statistics.median(self.seconds(action) for _ in range(1 if self.rehearsing else RUNS))

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def waits(self, action: Callable[[], object]) -> int:
        """Return how often an action makes the host wait for a GPU."""
        if self.device.type != "cuda":
            return 0
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                action()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in told)

    @property
    def has_time(self) -> bool:
        """Whether a further thing may begin."""
        return time.perf_counter() - self.begun < MOST_SECONDS


def low_rank(method: str, layer: int) -> LowRankEdit:
    """Return an edit of a layer's hidden states."""
    return LowRankEdit(StreamSite(layer), method, rank=RANK, positions=Positions.parse(POSITIONS))


def words(count: int = 1000) -> PreTrainedTokenizerFast:
    """Return a tokenizer of made-up words, which needs no file."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {"<pad>": 0, "<unk>": 1} | {f"w{number}": number + 2 for number in range(count)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>")


def sentences(count: int, length: int, *, seed: int) -> list[str]:
    """Return lines of made-up words."""
    drawn = torch.randint(0, 1000, (count, length), generator=torch.Generator().manual_seed(seed)).tolist()
    return [" ".join(f"w{number}" for number in row) for row in drawn]


def random_llama(shape: dict[str, int], *, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Return a Llama of a shape with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(**shape, vocab_size=32000 if shape is SEVEN_BILLION else 1100, pad_token_id=0, eos_token_id=0)
    with device:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


# Whether a GPU computes what the CPU computes


def log_probabilities(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return what a model says next at each place, on the CPU in float32."""
    with torch.no_grad(), prompt_lengths([ids.shape[1]] * len(ids)):
        logits = model(ids.to(model.device)).logits
    said: Tensor = logits.float().cpu().log_softmax(-1)
    return said


def carried(entry: Intervention, shape: tuple[int, int]) -> dict[str, Tensor]:
    """Return numbers an edit may have learned: not those it begins with, which may change nothing."""
    generator = torch.Generator().manual_seed(0)
    begun = entry.initial_tensors(shape, generator=generator)
    return {name: own + 0.05 * torch.randn(own.shape, generator=generator) for name, own in begun.items()}


def gradients(model: PreTrainedModel, ids: Tensor, entry: Intervention, tensors: dict[str, Tensor]) -> Tensor | None:
    """Return the gradients of what an edit learns, all in one; None where it learns nothing."""
    if not entry.learned_tensors:
        return None
    attachment = attach_interventions(model, [entry], tensors=[tensors], trainable=True)
    try:
        with prompt_lengths([ids.shape[1]] * len(ids)):
            logits = model(ids.to(model.device)).logits
        said, wanted = logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten().to(logits.device)
        torch.autograd.backward(nn.functional.cross_entropy(said, wanted) * 2**10)  # float16 has no small gradients
        learned = [own for module in attachment.modules if module is not None for own in module.parameters()]
        return torch.cat([own.grad.flatten().cpu() for own in learned if own.grad is not None])
    finally:
        attachment.detach()


def agreement(reference: PreTrainedModel, where: Where, dtype: torch.dtype) -> dict[str, Any]:
    """Return how far each method on the device is from the CPU in float32, beside how far the bare model is."""
    anatomy = Anatomy.of(reference)
    ids = torch.randint(10, 1000, (4, 12), generator=torch.Generator().manual_seed(0))
    site = WeightSite(anatomy.layer_count // 2, MatrixType.UP)
    shape = tuple(anatomy.read_weight(reference, site).shape)
    other = copy.deepcopy(reference).to(where.device, dtype)
    bare = float((log_probabilities(other, ids) - log_probabilities(reference, ids)).abs().max())
    found: dict[str, Any] = {"bare model": round(bare, 6)}
    for name, make in EDITS.items():
        entry = make(site)
        of = (anatomy.hidden_size, anatomy.hidden_size) if entry.kind == "state" else (shape[0], shape[1])
        tensors = carried(entry, of)
        said = []
        for model in (reference, other):
            attachment = attach_interventions(model, [entry], tensors=[tensors], decompose=decompose)
            said.append(log_probabilities(model, ids))
            attachment.detach()
        far = float((said[0] - said[1]).abs().max())
        ours, theirs = gradients(reference, ids, entry, tensors), gradients(other, ids, entry, tensors)
        alike = None if ours is None or theirs is None else float(nn.functional.cosine_similarity(ours, theirs, dim=0))
        found[name] = {
            "difference": round(far, 6),
            "gradients_alike": None if alike is None else round(alike, 5),
            "holds": far <= 3 * bare + 1e-3 and (alike is None or alike > (0.999 if dtype == torch.float32 else 0.97)),
        }
    return found


# How fast a large model is


class Large:
    """A large model, with what is done to it."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, where: Where) -> None:
        self.model, self.tokenizer, self.where = model.requires_grad_(False), tokenizer, where
        self.anatomy = Anatomy.of(model)
        self.found: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        lines = sentences(SELECT + TEST + 100, 9, seed=1)
        rows = [{"prompt": line.rsplit(" ", 1)[0], "answer": f" {line.rsplit(' ', 1)[1]}"} for line in lines]
        self.task = strop.load_task(
            {"name": "words", "data": rows, "prompt": "{{ prompt }}", "answer": "{{ answer }}", "score": "exact",
             "splits": {"train": 0.2, "select": 0.6, "test": 0.2, "seed": 0}}
        )  # fmt: skip

    def note(self, name: str, value: float) -> None:
        """Keep and print a figure, with the limit it is held to."""
        self.found[name] = round(value, 4)
        limit = LIMITS.get(name)
        print(f"{name}: {value:.3f}" + (f" (at most {limit:g})" if limit is not None else ""), flush=True)

    def identity(self) -> None:
        """Time the identity of a model nobody has seen, and of the same one again."""
        self.note("identity, first", self.where.seconds(lambda: identify(self.model)))
        self.note("identity, again", self.where.seconds(lambda: identify(self.model)))

    def decompositions(self) -> None:
        """Time the decompositions of a layer's matrices, on the device alone and kept on disk."""
        sites = [site for site in self.anatomy.sites() if site.layer == 1]
        matrices = [self.anatomy.read_weight(self.model, site) for site in sites]
        decompose(matrices[0])
        self.note("decompositions of a layer", self.where.seconds(lambda: [decompose(own) for own in matrices]))
        with tempfile.TemporaryDirectory() as folder:
            cache = DecompositionCache(Path(folder))
            self.note("the same, kept", self.where.seconds(lambda: [cache.decompose(own) for own in matrices]))
            self.note("until they are on disk", self.where.seconds(cache.flush))
            again = DecompositionCache(Path(folder))
            self.note("the same, read", self.where.seconds(lambda: [again.decompose(own) for own in matrices]))

    def search(self) -> None:
        """Time a gradient search over all layers, with nothing in the cache and again."""
        text = DriftText("words", "\n".join(sentences(400, 40, seed=2)))
        plan = SearchPlan(select_limit=SELECT, test_limit=TEST, top_matrices=4, finalists=4)
        options = RunOptions(drift_text=text, rivals=False, progress=SILENT)
        for name in ("cold", "warm"):
            with counting() as counts:
                taken = self.where.seconds(lambda: strop.search(self.model, self.tokenizer, self.task, plan, options))
            self.note(f"gradient search, {name}", taken)
            self.counts |= {f"{what}, {name}": count for what, count in counts.items()}

    def effects(self) -> None:
        """Time the effects of all components of a few layers beside a plain pass over the same examples."""
        scorer = Scorer(self.model, self.tokenizer, self.task.examples("train", limit=50), "exact", fewest=2)
        sites = [site for site in self.anatomy.sites() if site.layer < 4]
        cache = DecompositionCache()
        held = {site: cache.decompose(self.anatomy.read_weight(self.model, site)) for site in sites}

        def plain_passes() -> None:
            for batch in scorer.batches:
                self.plain(batch.input_ids)

        plain = self.where.median(plain_passes)
        taken = self.where.median(
            lambda: measure_effects(scorer, sites, decompose=cache.decompose, decompositions=held.__getitem__)
        )
        self.note("effects of four layers over a plain pass", taken / plain)

    def plain(self, ids: Tensor) -> None:
        """Run the frozen model forward, and gradients back to its first block."""
        handle = self.model.get_input_embeddings().register_forward_hook(lambda *call: call[-1].requires_grad_())
        torch.autograd.backward(self.loss(ids))
        handle.remove()

    def loss(self, ids: Tensor) -> Tensor:
        """Return the loss of the last token of each row."""
        with prompt_lengths([ids.shape[1] - 1] * len(ids)):
            logits = self.model(ids, logits_to_keep=1).logits
        return nn.functional.cross_entropy(logits[:, -1].float(), ids[:, 0])

    def steps(self) -> None:
        """Time training steps of two methods beside the frozen model's forward and backward pass."""
        sites = [site for site in self.anatomy.sites() if site.matrix_type in (MatrixType.VALUE, MatrixType.DOWN)]
        shapes = {site: tuple(self.anatomy.read_weight(self.model, site).shape) for site in sites}
        size = (self.anatomy.hidden_size,) * 2
        learned: dict[str, list[tuple[Intervention, tuple[int, int]]]] = {
            "loreft": [(low_rank("loreft", layer), size) for layer in range(self.anatomy.layer_count)],
            "spectrum": [(SpectrumScaling(site), (shape[0], shape[1])) for site, shape in shapes.items()],
        }
        for batch, tokens in (SHORT, LONG):
            ids = torch.randint(10, 1000, (batch, tokens), generator=torch.Generator().manual_seed(0))
            ids = ids.to(self.where.device)
            plain = self.where.median(functools.partial(self.plain, ids))
            self.note(f"plain forward and backward, {batch} x {tokens}", plain)
            for name, entries in learned.items():
                self.note(f"{name} step over plain, {batch} x {tokens}", self.step_of(entries, ids) / plain)

    def step_of(self, entries: list[tuple[Intervention, tuple[int, int]]], ids: Tensor) -> float:
        """Return the seconds of a step: forward, backward, AdamW."""
        tensors = [carried(entry, shape) for entry, shape in entries]
        attachment = attach_interventions(self.model, [entry for entry, _ in entries], tensors=tensors, trainable=True)
        optimiser = torch.optim.AdamW([own for own in self.model.parameters() if own.requires_grad], lr=1e-5)

        def step() -> None:
            torch.autograd.backward(self.loss(ids))
            optimiser.step()
            optimiser.zero_grad()

        try:
            taken = self.where.median(step)
            self.counts[f"waits of a {entries[0][0].method} step"] = self.where.waits(step)
            return taken
        finally:
            attachment.detach()

    def generation(self) -> None:
        """Time greedy generation with edits at all layers beside the bare model's."""
        ids = torch.randint(10, 1000, SHORT, generator=torch.Generator().manual_seed(0)).to(self.where.device)
        settings = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}

        def generate() -> None:
            self.model.generate(ids, attention_mask=torch.ones_like(ids), **settings)

        bare = self.where.median(generate)
        edits = [low_rank("loreft", layer) for layer in range(self.anatomy.layer_count)]
        tensors = [carried(edit, (self.anatomy.hidden_size,) * 2) for edit in edits]
        attachment = attach_interventions(self.model, edits, tensors=tensors)
        self.note("generation over bare", self.where.median(generate) / bare)
        attachment.detach()


@contextlib.contextmanager
def counting() -> Iterator[dict[str, int]]:
    """Count the bytes that are hashed and the decompositions that are made within the block."""
    hashing: Any = import_module("strop.linalg.fingerprint")
    cache: Any = import_module("strop.linalg.cache")
    counts = {"bytes hashed": 0, "decompositions made": 0}
    plain_hash, one, several = hashing._hashed, cache.decompose, cache.decompose_together

    def hashed(tensor: Tensor) -> Any:
        counts["bytes hashed"] += tensor.nbytes
        return plain_hash(tensor)

    def decomposed(matrix: Tensor) -> Any:
        counts["decompositions made"] += 1
        return one(matrix)

    def decomposed_together(matrices: list[Tensor]) -> Any:
        counts["decompositions made"] += len(matrices)
        return several(matrices)

    hashing._hashed, cache.decompose, cache.decompose_together = hashed, decomposed, decomposed_together
    try:
        yield counts
    finally:
        hashing._hashed, cache.decompose, cache.decompose_together = plain_hash, one, several


def measure(where: Where, named: str | None) -> dict[str, Any]:
    """Check and time everything there is time for."""
    cpu = torch.device("cpu")
    small = random_llama(TINY, device=cpu, dtype=torch.float32) if where.rehearsing else strop.load("smollm2-135m")[0]
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    agreements = {name: agreement(small, where, dtype) for name, dtype in dtypes.items()}
    wrong = [f"{dtype} {name}" for dtype, own in agreements.items() for name in EDITS if not own[name]["holds"]]
    print("methods that are not what the CPU computes:", ", ".join(wrong) or "none", flush=True)
    del small
    if named is not None:
        model, tokenizer = strop.load(named, device=where.device, dtype=torch.bfloat16)
    else:
        shape = TINY if where.rehearsing else SEVEN_BILLION
        model, tokenizer = random_llama(shape, device=where.device, dtype=torch.bfloat16), words()
    large, skipped = Large(model, tokenizer, where), []
    with empty_cache():
        for part in (large.identity, large.decompositions, large.steps, large.generation, large.search, large.effects):
            if where.has_time:
                part()
            else:
                skipped.append(part.__name__)
    return {
        "model": named or "random, of Llama-7B's shape",
        "agreement": agreements,
        "not_as_on_the_cpu": wrong,
        "measured": large.found,
        "counted": large.counts,
        "limits": LIMITS,
        "limits_missed": [name for name, limit in LIMITS.items() if large.found.get(name, 0) > limit],
        "skipped_for_time": skipped,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if where.device.type == "cuda" else None,
        "seconds": round(time.perf_counter() - where.begun, 1),
    }


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Let nothing be in Strop's cache when the block begins."""
    before = os.environ.get("STROP_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STROP_CACHE"] = folder
        try:
            yield
            DecompositionCache().flush()
        finally:
            os.environ.pop("STROP_CACHE")
            if before is not None:
                os.environ["STROP_CACHE"] = before


def main() -> None:
    """Measure where there is a GPU, rehearse where that is asked for, and else say so in a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a folder or a name; random weights of Llama-7B's shape by default")
    parser.add_argument("--rehearse", action="store_true", help="run the same code on the CPU with a tiny model")
    asked = parser.parse_args()
    if not torch.cuda.is_available() and not asked.rehearse:
        print("There is no CUDA device, so nothing is measured; --rehearse runs the same code on the CPU.")
        return
    where = Where(torch.device("cpu" if asked.rehearse else "cuda"), asked.rehearse)
    figures = measure(where, asked.model)
    if asked.rehearse:
        print("rehearsed:", ", ".join(figures["measured"]))
    else:
        write_result("gpu", figures)


if __name__ == "__main__":
    main()
