"""GPT-2: query, key and value stacked in one transposed Conv1D."""

from strop.anatomy.families.spelling import Family, Spelling
from strop.anatomy.sites import MatrixType as T

_QKV = (T.QUERY, T.KEY, T.VALUE)

GPT2 = Family(
    name="GPT-2",
    model_types=("gpt2",),
    blocks="transformer.h",
    matrices={
        T.QUERY: Spelling("attn.c_attn", packing="stacked", packed=_QKV, transposed=True),
        T.KEY: Spelling("attn.c_attn", packing="stacked", packed=_QKV, transposed=True),
        T.VALUE: Spelling("attn.c_attn", packing="stacked", packed=_QKV, transposed=True),
        T.OUTPUT: Spelling("attn.c_proj", transposed=True),
        T.UP: Spelling("mlp.c_fc", transposed=True),
        T.DOWN: Spelling("mlp.c_proj", transposed=True),
    },
)
