"""BERT and RoBERTa: encoders, whose tokens see all others."""

from strop.anatomy.families.spelling import Family, Spelling
from strop.anatomy.sites import MatrixType as T

_MATRICES = {
    T.QUERY: Spelling("attention.self.query"),
    T.KEY: Spelling("attention.self.key"),
    T.VALUE: Spelling("attention.self.value"),
    T.OUTPUT: Spelling("attention.output.dense"),
    T.UP: Spelling("intermediate.dense"),
    T.DOWN: Spelling("output.dense"),
}

BERT = Family(name="BERT", model_types=("bert",), blocks="bert.encoder.layer", matrices=_MATRICES, causal=False)

ROBERTA = Family(
    name="RoBERTa",
    model_types=("roberta",),
    blocks="roberta.encoder.layer",
    matrices=_MATRICES,
    causal=False,
    positions_after_padding=True,
)
