"""What to tell a person whose model no family covers."""

from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.families import FAMILIES


def describe_unknown(model: PreTrainedModel) -> str:
    """Return a message that shows what an unknown model is made of and how to describe it to Strop."""
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    lines = [
        f"{type(model).__name__} (model_type '{model.config.model_type}') belongs to no family Strop knows: {known}.",
    ]
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part)]
    if not lists:
        return " ".join([*lines, "It has no list of blocks, so it is not a Transformer that can be described."])
    path, blocks = max(lists, key=lambda entry: sum(p.numel() for p in entry[1].parameters()))
    lines.append(f"Found {len(blocks)} blocks in {path}; the matrices of the first are:")
    for name, part in blocks[0].named_modules():
        for own, weight in part.named_parameters(recurse=False):
            where = name if own == "weight" else f"{name}, parameter {own}"
            if weight.ndim == (2 if own == "weight" else 3):  # of three axes: the matrices of several experts
                lines.append(f"  {where}  {type(part).__name__}  {tuple(weight.shape)}")
    lines += [
        "Describe it once and pass the description on as family=:",
        "  from strop.anatomy import Family, MatrixType, Spelling",
        f'  family = Family(name="mine", model_types=("{model.config.model_type}",), blocks="{path}",',
        '                  matrices={MatrixType.QUERY: Spelling("path.of.the.query"), ...})',
        'Where a block\'s forward returns a tuple that begins with the hidden state, add block_returns="tuple". On the',
        "command line it is --family FILE.yaml, with the same keys.",
    ]
    return "\n".join(lines)
