"""Which matrix of a block is which, by what its module is called and how large it is."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from torch import nn

from strop.anatomy.families import EXPERT, Packing, Spelling
from strop.anatomy.reading.blocks import matrices_in
from strop.anatomy.reading.containers import Part, is_left_alone, part_of
from strop.anatomy.sites import MatrixType as T

_QKV, _GATE_UP = (T.QUERY, T.KEY, T.VALUE), (T.GATE, T.UP)
_Names = Mapping[tuple[T, ...], str]
_ATTENTION: _Names = {
    (T.QUERY,): r"q|w_?q|q_?proj|query|q_lin|q_?linear|query_proj|to_q",
    (T.KEY,): r"k|w_?k|k_?proj|key|k_lin|k_?linear|key_proj|to_k",
    (T.VALUE,): r"v|w_?v|v_?proj|value|v_lin|v_?linear|value_proj|to_v",
    (T.OUTPUT,): r"o|w_?o|o_?proj|out|out_proj|out_lin|output_proj|(\w+\.)?dense|c_proj|to_out(\.\d)?|proj",
    _QKV: r"c_attn|query_key_value|qkv|w_?qkv|qkv_proj|in_proj|w_pack",
    (T.KEY, T.VALUE): r"kv|kv_proj|w_?kv",
    (T.QUERY_DOWN,): r"q_a_proj",
    (T.QUERY_UP,): r"q_b_proj",
    (T.KEY_VALUE_DOWN,): r"kv_a_proj\w*",
    (T.KEY_VALUE_UP,): r"kv_b_proj",
}
_MLP: _Names = {
    (
        T.DOWN,
    ): r"down_proj|w2|wo|c_proj|fc2|fc_out|dense_4h_to_h|lin(ear_?)?2|output_linear|ffn_output|ff_out|output\.dense",
    _GATE_UP: r"gate_up_proj|gate_up|w12|input_linear",
    (T.GATE,): r"gate_proj|gate|w1|wi_0|c_fc_0|linear_gate",
    (T.UP,): r"up_proj|w3|wi_1|c_fc_1|fc1|fc_in|c_fc|wi|dense_h_to_4h|lin(ear_?)?1|ffn|ff_proj|intermediate\.dense",
}
_MIXER: _Names = {
    (T.MIXER_IN,): r"in_proj(_qkvz?)?|linear_x",
    (T.MIXER_SELECT,): r"x_proj|in_proj_ba",
    (T.MIXER_STEP,): r"dt_proj",
    (T.MIXER_OUT,): r"out_proj|linear_out",
}
_NAMES: Mapping[Part, _Names] = {
    Part.ATTENTION: _ATTENTION,
    Part.CROSS_ATTENTION: _ATTENTION,
    Part.MLP: _MLP,
    Part.EXPERTS: _MLP,
    Part.SHARED_EXPERT: _MLP,
    Part.MIXER: _MIXER,
}
_SHARED = {T.GATE: T.SHARED_GATE, T.UP: T.SHARED_UP, T.DOWN: T.SHARED_DOWN}


@dataclasses.dataclass(frozen=True)
class Roles:
    """What a block's matrices were found to be."""

    own: Mapping[T, Spelling]
    """Those of the block itself."""
    cross: Mapping[T, Spelling]
    """Those of a decoder's attention to an encoder."""
    unnamed: tuple[str, ...]
    """The paths of matrices that could not be told, or were told to be two of a kind."""


@dataclasses.dataclass(frozen=True)
class _Parameter:
    """A parameter that holds matrices, and what it is taken for."""

    path: str
    parameter: str
    shape: tuple[int, ...]
    """As Linear stores it, (…, out, in)."""
    transposed: bool
    part: Part | None
    stacked_experts: bool
    interleaved: bool = False

    @property
    def where(self) -> str:
        return self.path if self.parameter == "weight" else f"{self.path}.{self.parameter}"

    @property
    def name(self) -> str:
        """What it is called, with the name of what it is in where `dense` or a number says nothing."""
        if self.parameter != "weight":
            return self.parameter
        words = self.path.lower().split(".")
        return ".".join(words[-2:]) if words[-1] == "dense" or words[-1].isdecimal() else words[-1]

    def spelled(self, packed: tuple[T, ...]) -> Spelling:
        packing: Packing = "whole" if len(packed) == 1 else "interleaved" if self.interleaved else "stacked"
        return Spelling(
            self.path,
            packing,
            packed if len(packed) > 1 else (),
            self.transposed,
            self.parameter,
            "stacked" if self.stacked_experts else None,
        )


def roles_in(block: nn.Module, *, hidden_size: int) -> Roles:
    """Return what the matrices of a block are.

    Args:
        block: one block of a model.
        hidden_size: of the hidden states that pass it.
    """
    held = _parameters_of(block, hidden_size)
    by_part: dict[Part, list[_Parameter]] = defaultdict(list)
    unnamed: list[str] = []
    for each in held:
        if each.part is None and not _is_bare_mlp(each, hidden_size):
            unnamed.append(each.where)
        else:
            by_part[each.part or Part.MLP].append(each)
    found: dict[bool, dict[T, Spelling]] = {False: {}, True: {}}
    for part, own in by_part.items():
        told = _told(part, own, hidden_size)
        unnamed += [each.where for each in own if each not in told]
        crosses = part is Part.CROSS_ATTENTION
        for each, packed in told.items():
            spelling = each.spelled(packed)
            for matrix_type in packed:
                name = _SHARED[matrix_type] if part is Part.SHARED_EXPERT else matrix_type
                found[crosses].setdefault(name, _renamed(spelling, part))
    return Roles(_in_order(found[False]), _in_order(found[True]), tuple(unnamed))


def _told(part: Part, own: Sequence[_Parameter], hidden_size: int) -> dict[_Parameter, tuple[T, ...]]:
    """Return what each parameter of a part holds; what is found twice is nobody's."""
    told = {each: _named(part, each) for each in own}
    if part in (Part.MLP, Part.EXPERTS, Part.SHARED_EXPERT):
        told = _by_size(told, hidden_size)
    tally: dict[T, int] = defaultdict(int)
    for packed in told.values():
        for matrix_type in packed or ():
            tally[matrix_type] += 1
    return {
        each: packed
        for each, packed in told.items()
        if packed and all(tally[matrix_type] == 1 for matrix_type in packed)
    }


def _named(part: Part, held: _Parameter) -> tuple[T, ...] | None:
    for packed, pattern in _NAMES[part].items():
        if re.fullmatch(pattern, held.name):
            return packed
    return None


def _by_size(
    told: Mapping[_Parameter, tuple[T, ...] | None], hidden_size: int
) -> dict[_Parameter, tuple[T, ...] | None]:
    """Return an MLP's matrices corrected by their sizes: what is wide enough for gate and up is both, one alone is `up`."""
    found = dict(told)
    for each in found:
        if found[each] is None and each.shape[-2:] != (hidden_size, hidden_size):
            found[each] = (
                (T.DOWN,) if each.shape[-2] == hidden_size else (T.UP,) if each.shape[-1] == hidden_size else None
            )
    down = next((each for each, packed in found.items() if packed == (T.DOWN,)), None)
    if down is None:
        return found
    for each, packed in found.items():
        if packed in ((T.UP,), _GATE_UP):
            found[each] = _GATE_UP if each.shape[-2] == 2 * down.shape[-1] else (T.UP,)
    entering = [each for each, packed in found.items() if packed in ((T.UP,), (T.GATE,))]
    if len(entering) == 1:
        found[entering[0]] = (T.UP,)
    return found


def _parameters_of(block: nn.Module, hidden_size: int) -> list[_Parameter]:
    found: dict[str, _Parameter] = {}
    for each in matrices_in(block):
        path, shape = each.path, each.shape
        if not path or is_left_alone(block, path):
            continue
        transposed = _is_transposed(each.module, f"{path}.{each.name}", shape, hidden_size)
        held = _Parameter(
            re.sub(r"(^|\.)experts\.\d+\.", rf"\1experts.{EXPERT}.", path),
            each.name,
            (*shape[:-2], shape[-1], shape[-2]) if transposed else shape,
            transposed,
            part_of(block, path),
            stacked_experts=len(shape) == 3,
            interleaved=len(shape) == 3 and not getattr(each.module, "is_concatenated", True),
        )
        found.setdefault(held.where, held)
    return list(found.values())


def _is_transposed(module: nn.Module, where: str, shape: tuple[int, ...], hidden_size: int) -> bool:
    """Return whether a parameter is stored as (…, in, out)."""
    if len(shape) == 2:
        return type(module).__name__ == "Conv1D"
    said = getattr(module, "is_transposed", None)
    if said is not None:
        return bool(said)
    leaves = re.search(r"down|output", where) is not None
    return shape[-1] == hidden_size != shape[-2] if leaves else shape[-2] == hidden_size != shape[-1]


def _is_bare_mlp(held: _Parameter, hidden_size: int) -> bool:
    """Return whether a matrix that stands in the block itself widens the hidden state or makes it narrow again."""
    return len(held.shape) == 2 and hidden_size in held.shape and _named(Part.MLP, held) is not None


def _renamed(spelling: Spelling, part: Part) -> Spelling:
    if part is not Part.SHARED_EXPERT or not spelling.packed:
        return spelling
    return dataclasses.replace(spelling, packed=tuple(_SHARED[each] for each in spelling.packed))


def _in_order(found: Mapping[T, Spelling]) -> dict[T, Spelling]:
    return {matrix_type: found[matrix_type] for matrix_type in T if matrix_type in found}
