"""The settings of a training, as one value that is valid once built."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args

from strop.anatomy import MatrixType, Stack, Stream, StreamSite, WeightSite
from strop.errors import UsageError
from strop.interventions import Intervention, LowRankEdit, LowRankUpdate, OutputBias, Positions, SpectrumScaling
from strop.interventions.formulas import FORMULAS, Activation, Initialisation
from strop.proving import DriftText
from strop.statistics import ObjectiveName

Precision = Literal["float32", "bfloat16", "float16"]
Schedule = Literal["linear", "cosine", "constant"]

WEIGHT_METHODS = ("spectrum", "bias", "lora")
"""The methods that learn edits of weights."""

USUAL_TYPES = {"bias": (MatrixType.DOWN,), "lora": (MatrixType.QUERY, MatrixType.VALUE)}
"""Which matrices a method edits where none are named; all of them by default."""

USUAL_RATES = {"spectrum": 0.01, "bias": 0.01, "lora": 0.002}
"""The learning rates of the methods of weights where none is given."""

STATE_SETTINGS = tuple("stream positions tied activation subspaces train_subspaces init dropout dropout_on".split())
"""The settings that say what edits of hidden states are like, beside their rank."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """How edits are trained.

    By default the paper's settings for commonsense reasoning (Wu, Arora et al., ReFT, arXiv 2404.03592, appendix D), but
    for an edit that begins as the identity and a choice by the select split after each epoch.

    Raises:
        UsageError: a setting is out of its range, or two exclude each other.
    """

    method: str = "loreft"
    """One of `strop.interventions.FORMULAS`, edits of hidden states; or, of weights, `spectrum` (every singular value of a
    matrix scaled), `bias` (a vector added to a matrix's output) or `lora` (a matrix of low rank added to one)."""
    edits: tuple[Intervention, ...] | None = None
    """What learns, where it is no edit that the settings from `method` to `init` describe: interventions of any method that
    learns, of weights or of hidden states."""
    layers: tuple[int, ...] | None = None
    """Whose hidden states or matrices are edited; all by default."""
    stack: Stack | None = None
    """Which list of blocks, of a model that has several; the main one by default."""
    matrix_types: tuple[MatrixType, ...] | None = None
    """Which matrices, where weights are edited: all by default; for `bias` the one that ends a block's MLP, and for `lora` query
    and value, which its paper found best for as many numbers (arXiv 2106.09685, section 7.1)."""
    top: int | None = None
    """How many of each matrix's largest singular values `spectrum` scales; all by default."""
    band: int = 0
    """How many diagonals on either side of the main one `spectrum` learns as well (SVFT, arXiv 2405.19597)."""
    sparsity: float | None = None
    """The share of the singular values that stay exactly as they are, while `spectrum` learns which to remove of the others: it
    opens and shuts gates, d = 0 or −1, and what it finds is a pruning; None scales all of them."""
    stream: Stream = Stream.BLOCK
    """Which hidden states of a layer."""
    rank: int = 8
    """Of each edit's subspace, or of what `lora` adds; at most the matrix's own."""
    alpha: float | None = None
    """α of `lora`, which over its rank scales what is added; by default twice the rank, 16 for a rank of 8."""
    positions: Positions = dataclasses.field(default_factory=lambda: Positions(7, 7))
    """Which tokens are edited."""
    tied: bool = True
    """One edit a layer for the first and the last tokens; else one for each end."""
    activation: Activation = "linear"
    """Of what the edit puts into the subspace."""
    subspaces: tuple[tuple[str, int], ...] = ()
    """Names and ranks of parts of the subspace; none by default."""
    train_subspaces: tuple[str, ...] | None = None
    """The parts that learn; all by default."""
    init: Initialisation = "identity"
    """What training begins with: edits that change nothing, or the paper's random ones."""
    dropout: float = 0.0
    """Share of the edit's entries training sets to zero."""
    dropout_on: Literal["edit", "state"] = "edit"
    """What dropout falls on; the published code drops the whole edited state."""
    epochs: int = 6
    """How often the train split is read."""
    learning_rate: float | None = None
    """AdamW's, at its highest; by default 0.0009, the paper's, for edits of hidden states, 0.002 for `lora`, and 0.01 for the
    other edits of weights."""
    keep_base: float = 10.0
    """λ, what a nat per token of drift from the base costs beside the task's loss; 0 lets the edits drift. A classifier writes
    no text that it could be kept to."""
    keep_texts: int = 1
    """Texts of each pass that drift is priced on."""
    keep_text: DriftText | None = None
    """A user's text that the edits keep to as well as to what the base writes itself."""
    batch_size: int = 16
    """Examples of one pass, on each process."""
    accumulate: int = 2
    """Passes added up to one step."""
    weight_decay: float = 0.0
    """AdamW's."""
    warmup: float = 0.1
    """Share of the steps on which the learning rate rises."""
    schedule: Schedule = "linear"
    """How it falls after that."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    precision: Precision = "float32"
    """What the model computes in under autocast; its own dtype where that is narrower. Edits are always float32."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    prefix_budget_bytes: int = 2**30
    """Most memory for hidden states below the lowest edit that are read once and reused in every epoch; 0 reuses none."""
    patience: int | None = None
    """Epochs without a better choice on select before training stops; none by default."""
    train_limit: int | None = None
    """Most examples to learn from."""
    select_limit: int | None = 1000
    """Most examples to choose by."""
    test_limit: int | None = None
    """Most examples to measure on."""
    report_to: tuple[str, ...] = ()
    """Where the Trainer reports losses: tensorboard, wandb and their like."""
    objective: ObjectiveName = "average"
    """Which accuracy the choice maximises: of all select examples, or `macro`, the mean over the task's categories."""
    seed: int = 0
    """Of the initial edits, the order of examples, dropout and the bootstrap."""

    def __post_init__(self) -> None:
        if self.edits is None and self.method not in (*FORMULAS, *WEIGHT_METHODS):
            raise UsageError(
                f"'{self.method}' is not a method of training: {', '.join(FORMULAS)} edit hidden states, "
                f"{_listed(WEIGHT_METHODS, 'and')} weights."
            )
        for site_layer in self.layers or (0,):
            if self.method in WEIGHT_METHODS:
                self.weight_edit_of(WeightSite(site_layer, MatrixType.DOWN), sys.maxsize)
            else:
                self.edits_at(site_layer)  # refuses what no edit can be
        self._refuse_settings_of_other_methods()
        if self.edits is not None and not self.edits:
            raise UsageError("edits names nothing that learns; leave it out for the edits the other settings describe.")
        if self.edits is not None and self.train_subspaces is not None:
            raise UsageError("train_subspaces goes with the edits the other settings describe; leave out edits or it.")
        for edit in self.edits or ():
            if not edit.learned_tensors:
                raise UsageError(
                    f"{edit.site}: {edit.method} learns nothing; find it by a search, and train on top of it."
                )
        if self.layers is not None and not self.layers:
            raise UsageError("layers names no layer; leave it out for all.")
        if self.train_subspaces is not None and not self.train_subspaces:
            raise UsageError("train_subspaces names no subspace; leave it out for all.")
        for name, low in (
            ("epochs", 1),
            ("keep_texts", 1),
            ("batch_size", 1),
            ("accumulate", 1),
            ("seed", 0),
            ("prefix_budget_bytes", 0),
        ):
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {low} or more, not {getattr(self, name)}.")
        for name in ("patience", "train_limit", "select_limit", "test_limit"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} is 1 or more, not {getattr(self, name)}.")
        if self.learning_rate is not None and not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"learning_rate is above 0, not {self.learning_rate}.")
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} lies in [0, 1), not {getattr(self, name)}.")
        for name in ("weight_decay", "max_grad_norm", "keep_base"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} is 0 or more, not {getattr(self, name)}.")
        self._refuse_what_gates_lack()
        if self.keep_text is not None and not self.keep_base:
            raise UsageError("keep_text is a text to keep to, and keep_base is 0; leave out one of them.")
        for name, known in (
            ("dropout_on", ("edit", "state")),
            ("precision", get_args(Precision)),
            ("schedule", get_args(Schedule)),
            ("init", get_args(Initialisation)),
            ("objective", get_args(ObjectiveName)),
        ):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} is one of {', '.join(known)}, not '{getattr(self, name)}'.")

    def _refuse_what_gates_lack(self) -> None:
        """Raise UsageError if a setting says how far gates move, which open or shut, or how they mix."""
        if self.sparsity is None:
            return
        if not 0 < self.sparsity < 1:
            raise UsageError(f"sparsity lies above 0 and below 1, the share that stays as it is, not {self.sparsity}.")
        for name in ("learning_rate", "weight_decay", "band", "edits"):
            if getattr(self, name):
                raise UsageError(f"{name} goes with scales, not with the gates of sparsity; leave it out.")

    def _refuse_settings_of_other_methods(self) -> None:
        """Raise UsageError if a setting says what another method's edits are like."""
        if self.edits is not None:
            return
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        defaults["positions"] = Positions(7, 7)
        foreign = {
            "matrix_types": WEIGHT_METHODS,
            "rank": ("lora", *FORMULAS),
            "alpha": ("lora",),
            "top": ("spectrum",),
            "band": ("spectrum",),
            "sparsity": ("spectrum",),
            **dict.fromkeys(STATE_SETTINGS, tuple(FORMULAS)),
        }
        for name, methods in foreign.items():
            if self.method not in methods and getattr(self, name) != defaults[name]:
                meant = [method for method in methods if method not in FORMULAS]
                meant += ["edits of hidden states, such as loreft"] if len(meant) < len(methods) else []
                raise UsageError(f"{name} goes with {_listed(meant, 'or')}, not with {self.method}; leave it out.")

    @property
    def rate(self) -> float:
        """The learning rate at its highest; of gates it weighs the steps against each other, and nothing else."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.sparsity is not None:
            return 1.0
        return USUAL_RATES.get(self.method, 9e-4) if self.edits is None else 9e-4

    @property
    def averages(self) -> bool:
        """Whether the average of what is learned late is a candidate beside the epochs.

        It is where what is learned enters the weights as it is: gates are open or shut, and the product of the averages of
        a LoRA's factors is not the average of their products.
        """
        return self.edits is None and self.method in ("spectrum", "bias") and self.sparsity is None

    @property
    def weight_types(self) -> tuple[MatrixType, ...] | None:
        """The matrices that a method of weights edits; None for all."""
        return self.matrix_types if self.matrix_types is not None else USUAL_TYPES.get(self.method)

    def weight_edit_of(self, site: WeightSite, rank: int) -> SpectrumScaling | OutputBias | LowRankUpdate:
        """Return what a method of weights learns of one matrix of some rank."""
        if self.method == "bias":
            return OutputBias(site)
        if self.method == "lora":
            own = min(self.rank, rank)
            return LowRankUpdate(site, own, self.alpha if self.alpha is not None else 2 * own)
        top = self.top if self.top is not None and self.top < rank else None
        return SpectrumScaling(site, top=top, band=min(self.band, (top or rank) - 1))

    def edits_at(self, layer: int, stack: Stack | None = None) -> tuple[LowRankEdit, ...]:
        """Return the edits of one layer: one, or one for the first and one for the last tokens where they are untied.

        Args:
            layer: counted from 0.
            stack: which list of blocks, where the model has several.
        """
        shares = (self.positions,) if self.tied else self.positions.untied
        return tuple(
            LowRankEdit(
                StreamSite(layer, self.stream, stack=stack),
                self.method,
                rank=self.rank,
                positions=share,
                activation=self.activation,
                subspaces=self.subspaces,
            )
            for share in shares
        )

    @property
    def learned_method(self) -> str:
        """The name of what learns; several methods' names together."""
        return self.method if self.edits is None else "+".join(sorted({edit.method for edit in self.edits}))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as config.json holds them, but for those that older runs do not know and that change nothing."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        settings["learning_rate"] = self.rate
        settings["keep_text"] = self.keep_text.fingerprint if self.keep_text is not None else None
        if settings["keep_base"] == 0:
            for name in ("keep_base", "keep_texts", "keep_text"):
                del settings[name]
        for name, default in (
            ("objective", "average"),
            ("matrix_types", None),
            ("alpha", None),
            ("top", None),
            ("band", 0),
            ("sparsity", None),
            ("stack", None),
        ):
            if settings[name] == default:
                del settings[name]
        if settings.pop("edits") is not None:
            settings["edits"] = [edit.to_json((1, 1)) for edit in self.edits or ()]  # the decisions alone, of any shape
        return {**settings, "positions": str(self.positions), "subspaces": dict(self.subspaces)}


def _listed(words: Sequence[str], link: str) -> str:
    """Return words in a row, the last two joined by another word."""
    return f" {link} ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
