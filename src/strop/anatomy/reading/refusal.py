"""What to tell a person whose model could not be read, or is not what it looks like."""

from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.families import Family
from strop.anatomy.family_file import family_as_yaml
from strop.errors import AnatomyError, UnknownArchitectureError


def describe_unknown(model: PreTrainedModel) -> str:
    """Return a message that shows what an unknown model is made of and how to describe it to Strop."""
    lines = [f"{type(model).__name__} (model_type '{model.config.model_type}') is not made as Strop reads a model."]
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
        "Describe it once, in a file that is given as --family FILE.yaml (in Python, as family=, what read_family of "
        "strop.anatomy makes of it):",
        f"  name: mine\n  blocks: {path}\n  matrices:\n    query: path.of.the.query",
        "Where a block's forward returns a tuple that begins with the hidden state, add block_returns: tuple.",
    ]
    return "\n".join(lines)


def refuse_reading(model: PreTrainedModel, family: Family, fault: AnatomyError) -> UnknownArchitectureError:
    """Return the error that says what of a reading did not hold, and the description that would settle it once mended."""
    described = "\n".join(f"  {line}" for line in family_as_yaml(family).splitlines())
    return UnknownArchitectureError(
        f"{type(model).__name__} was read and is not what it looks like: {fault}\n"
        f"Mend what is wrong in this description and give it as --family FILE.yaml:\n{described}"
    )
