"""Each architecture's spelling, declared once."""

from strop.anatomy.families.bert import BERT, ROBERTA
from strop.anatomy.families.gpt2 import GPT2
from strop.anatomy.families.gpt_neox import GPT_NEOX
from strop.anatomy.families.gptj import GPTJ
from strop.anatomy.families.llama import LLAMA, PHI3
from strop.anatomy.families.spelling import BiasFlag, Family, Spelling

FAMILIES: tuple[Family, ...] = (LLAMA, PHI3, GPT2, GPTJ, GPT_NEOX, BERT, ROBERTA)

__all__ = ["FAMILIES", "BiasFlag", "Family", "Spelling"]
