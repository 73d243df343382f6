"""What a Transformer is made of; `families/` holds each architecture's spelling."""

from strop.anatomy.anatomy import Anatomy
from strop.anatomy.asked import AskedForGradients
from strop.anatomy.calling import evaluating, frozen, input_device, input_embeddings
from strop.anatomy.editable import editable_shapes
from strop.anatomy.entering import tokens_entering
from strop.anatomy.families import Family, Spelling
from strop.anatomy.family_file import family_as_yaml, read_family
from strop.anatomy.prefix import hidden_states_entering, hidden_states_made_by, logits_at
from strop.anatomy.reading import Reading, read_model
from strop.anatomy.sites import MatrixType, Site, Stack, Stream, StreamSite, WeightSite, parse_layers
from strop.anatomy.storage import ABSENT, COMPUTED, Storage, device_of, storage_of
from strop.anatomy.tap import Tap, by_sequence

__all__ = [
    "ABSENT",
    "COMPUTED",
    "Anatomy",
    "AskedForGradients",
    "Family",
    "MatrixType",
    "Reading",
    "Site",
    "Spelling",
    "Stack",
    "Storage",
    "Stream",
    "StreamSite",
    "Tap",
    "WeightSite",
    "by_sequence",
    "device_of",
    "editable_shapes",
    "evaluating",
    "family_as_yaml",
    "frozen",
    "hidden_states_entering",
    "hidden_states_made_by",
    "input_device",
    "input_embeddings",
    "logits_at",
    "parse_layers",
    "read_family",
    "read_model",
    "storage_of",
    "tokens_entering",
]
