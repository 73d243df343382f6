"""Where an architecture keeps each matrix, said again without Strop's slices: indices into the raw parameter.

Nothing here asks an `Anatomy` for more than a module's name. What a fused matrix holds is on the member's line, and the words
below say which names of modules speak of which matrix.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from tests.conformance.models import Member
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from strop.anatomy import MatrixType, WeightSite

WORDS: dict[str, tuple[str, ...]] = {
    "query": ("q_proj", "query", "query_proj", "q_lin", "q", "Wq"),
    "key": ("k_proj", "key", "key_proj", "k_lin", "k", "Wk"),
    "value": ("v_proj", "value", "value_proj", "v_lin", "v", "Wv"),
    "output": ("o_proj", "out_proj", "dense", "c_proj", "o", "out_lin", "Wo"),
    "gate": ("gate_proj", "gate", "w1", "wi_0"),
    "up": (
        *("up_proj", "fc1", "fc_in", "c_fc", "dense_h_to_4h", "dense", "lin1", "ffn", "w3"),
        *("wi", "wi_1", "0"),
    ),
    "down": (
        *(
            "down_proj",
            "fc2",
            "fc_out",
            "c_proj",
            "dense_4h_to_h",
            "dense",
            "lin2",
            "ffn_output",
            "w2",
            "wo",
            "Wo",
            "2",
        ),
        "output_linear",
    ),
    "query_down": ("q_a_proj",),
    "query_up": ("q_b_proj",),
    "key_value_down": ("kv_a_proj_with_mqa",),
    "key_value_up": ("kv_b_proj",),
    "shared_gate": ("gate_proj",),
    "shared_up": ("up_proj",),
    "shared_down": ("down_proj",),
    "mixer_in": ("in_proj", "in_proj_qkvz", "linear_x"),
    "mixer_select": ("x_proj", "in_proj_ba"),
    "mixer_step": ("dt_proj",),
    "mixer_out": ("out_proj", "linear_out"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """A matrix inside a raw parameter."""

    name: str
    """The parameter's."""
    index: NDArray[np.int64]
    """(out, in): where in the flat parameter each entry lies."""

    def of(self, parameter: Tensor) -> NDArray[np.float64]:
        """Return the matrix inside the parameter, or inside its gradient, (out, in)."""
        return parameter.detach().double().numpy().reshape(-1)[self.index]


def place_of(member: Member, model: PreTrainedModel, path: str, parameter: str, site: WeightSite) -> Place:
    """Return where a matrix lies.

    Args:
        member: says what fused matrices hold.
        model: the member's.
        path: of the module that holds the matrix.
        parameter: of the module.
        site: the matrix.
    """
    name = f"{path}.{parameter}"
    stored = model.get_parameter(name)
    index = np.arange(stored.numel()).reshape(tuple(stored.shape))
    index = index[site.expert] if index.ndim == 3 else index
    if isinstance(model.get_submodule(path), Conv1D) or (stored.ndim == 3 and member.experts_read_rows):
        index = index.T
    last = path.rpartition(".")[2] if parameter == "weight" else parameter
    fused = member.fused.get(last)
    if fused is None:
        _assert_named(site.matrix_type, path, last)
        return Place(name, index)
    return Place(name, index[_rows(fused, site.matrix_type, index.shape[0], model)])


def _assert_named(matrix_type: MatrixType, path: str, last: str) -> None:
    """Fail where a module's name speaks of another matrix."""
    assert last in WORDS[matrix_type], f"{path} is no {matrix_type} by its name"
    if last in ("dense", "c_proj", "out_proj", "o", "Wo") and matrix_type in ("output", "up", "down"):  # of which part?
        assert ("att" in path.lower()) == (matrix_type == "output"), path


def _rows(fused: str, matrix_type: MatrixType, count: int, model: PreTrainedModel) -> NDArray[np.int64]:
    """Return which rows of a fused matrix are one matrix's, in order."""
    words, _, by = fused.partition(" by ")
    parts = words.split()
    here = parts.index(matrix_type)
    rows = np.arange(count)
    config = model.config.get_text_config()
    if by == "row":  # one of each in turn
        return rows.reshape(-1, len(parts))[:, here]
    if "query" not in parts:
        return np.split(rows, len(parts))[here]
    heads = config.num_attention_heads
    if by == "head":  # query, key and value of the first head, then of the second
        return rows.reshape(heads, len(parts), -1)[:, here].reshape(-1)
    if by == "share":  # in four shares, each with a part of every matrix (CodeGen, for tensors in parallel)
        return rows.reshape(4, len(parts), -1)[:, here].reshape(-1)
    keys = _key_heads(config, heads)
    if by == "group":  # the queries that share a key, that key and its value
        groups = rows.reshape(keys, heads // keys + 2, -1)
        return {"query": groups[:, :-2], "key": groups[:, -2], "value": groups[:, -1]}[str(matrix_type)].reshape(-1)
    size = count // (heads + 2 * keys)
    first = {"query": 0, "key": heads, "value": heads + keys}[str(matrix_type)] * size
    return rows[first : first + (heads if matrix_type == "query" else keys) * size]


def _key_heads(config: object, heads: int) -> int:
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        return 1
    return getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None) or heads
