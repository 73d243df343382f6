"""GPT-J, the model LASER was first measured on: no gate, attention and MLP side by side, blocks that return a tuple."""

from strop.anatomy.families.spelling import Family, Spelling
from strop.anatomy.sites import MatrixType as T

GPTJ = Family(
    name="GPT-J",
    model_types=("gptj",),
    blocks="transformer.h",
    matrices={
        T.QUERY: Spelling("attn.q_proj"),
        T.KEY: Spelling("attn.k_proj"),
        T.VALUE: Spelling("attn.v_proj"),
        T.OUTPUT: Spelling("attn.out_proj"),
        T.UP: Spelling("mlp.fc_in"),
        T.DOWN: Spelling("mlp.fc_out"),
    },
    block_returns="tuple",
)
