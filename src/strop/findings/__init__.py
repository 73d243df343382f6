"""What a run's files show, as typed tables: answers, categories, frequencies, wordings, spectra, sweeps, curves; no model."""

from strop.findings.categories import gain_by_category
from strop.findings.changed import changed_examples
from strop.findings.curve import ChoiceCurve, CurvePoint, choice_curve
from strop.findings.frequency import FrequencyBin, FrequencyTable, gain_by_frequency
from strop.findings.paraphrases import (
    FactInWords,
    ParaphraseTable,
    paraphrase_robustness,
    read_paraphrases,
    write_paraphrases,
)
from strop.findings.race import RaceCurve, RaceRound, race_curve
from strop.findings.removed import AnswerByShare, RemovedComponents, ShareKept, read_removed, write_removed
from strop.findings.spectra import SpectrumRow, spectrum_rows
from strop.findings.sweep import SweepTable, loss_by_layer_and_rank

__all__ = [
    "AnswerByShare",
    "ChoiceCurve",
    "CurvePoint",
    "FactInWords",
    "FrequencyBin",
    "FrequencyTable",
    "ParaphraseTable",
    "RaceCurve",
    "RaceRound",
    "RemovedComponents",
    "ShareKept",
    "SpectrumRow",
    "SweepTable",
    "changed_examples",
    "choice_curve",
    "gain_by_category",
    "gain_by_frequency",
    "loss_by_layer_and_rank",
    "paraphrase_robustness",
    "race_curve",
    "read_paraphrases",
    "read_removed",
    "spectrum_rows",
    "write_paraphrases",
    "write_removed",
]
