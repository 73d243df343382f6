"""Which architectures keep the query, key and value of each head together in one fused matrix."""

from typing import Any


def interleaves_heads(config: Any) -> bool:
    """Return whether a model's fused attention matrix is known to hold head by head one slice of each.

    A stacked description of such a matrix would add up, and cut it wrongly.
    """
    match config.model_type:
        case "bloom" | "gpt_neox" | "persimmon":
            return True
        case "falcon":
            return bool(config.new_decoder_architecture or not config.multi_query)
    return False
