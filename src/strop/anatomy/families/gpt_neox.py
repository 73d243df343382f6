"""GPT-NeoX and Pythia: for each head a slice of query, of key and of value, in one Linear."""

from strop.anatomy.families.spelling import BiasFlag, Family, Spelling
from strop.anatomy.sites import MatrixType as T

_QKV = (T.QUERY, T.KEY, T.VALUE)

GPT_NEOX = Family(
    name="GPT-NeoX",
    model_types=("gpt_neox",),
    blocks="gpt_neox.layers",
    matrices={
        T.QUERY: Spelling("attention.query_key_value", packing="interleaved", packed=_QKV),
        T.KEY: Spelling("attention.query_key_value", packing="interleaved", packed=_QKV),
        T.VALUE: Spelling("attention.query_key_value", packing="interleaved", packed=_QKV),
        T.OUTPUT: Spelling("attention.dense"),
        T.UP: Spelling("mlp.dense_h_to_4h"),
        T.DOWN: Spelling("mlp.dense_4h_to_h"),
    },
    bias_flags=(BiasFlag("attention_bias", (*_QKV, T.OUTPUT), ("gpt_neox",)),),
)
