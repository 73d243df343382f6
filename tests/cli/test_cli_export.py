"""`strop export`: what was learned as a LoRA, as an adapter that PEFT loads."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

import strop
from strop.recipe import Recipe

LORA = ["--method", "lora", "--rank", "4", "--matrix-types", "query,value", "--layers", "1-2", "--epochs", "1"]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of PEFT
def test_a_lora_is_trained_written_as_an_adapter_and_loaded_by_peft(
    strop_command: Any, tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    run, adapter = tmp_path / "run", tmp_path / "adapter"
    options = [*LORA, "--alpha", "12", "--lr", "0.02", "--batch-size", "4", "--accumulate", "1", "--keep-base", "0"]
    options += ["--train-limit", "12", "--select-limit", "8", "--test-limit", "8"]
    trained = strop_command("train", tiny_folder, "--task", facts, "--out", run, *options, "--quiet")
    assert trained.code == 0, trained.err
    plan = json.loads((run / "config.json").read_text())["plan"]
    assert {name: plan[name] for name in ("method", "rank", "alpha", "matrix_types", "learning_rate")} == {
        "method": "lora", "rank": 4, "alpha": 12.0, "matrix_types": ["query", "value"], "learning_rate": 0.02,
    }  # fmt: skip
    call = ("export", tiny_folder, "--recipe", run / "recipe", "--out", adapter)
    shown = strop_command(*call)
    assert shown.code == 0, shown.err
    assert "MB, with 4 interventions as a LoRA adapter" in shown.out
    assert f'PeftModel.from_pretrained(model, "{adapter}")' in "".join(shown.out.splitlines())
    again = strop_command(*call[:-1], tmp_path / "again", "--format", "peft", "--json")
    assert again.json["format"] == "peft"
    assert again.json["bytes"] == sum(file.stat().st_size for file in adapter.iterdir())
    assert again.json["interventions"][0]["method"] == "lora"
    model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        with strop.applied(model, Recipe.load(run / "recipe")):
            expected = model(ids).logits
        assert not torch.allclose(expected, model(ids).logits, atol=1e-3)
        adapted = peft.PeftModel.from_pretrained(model, adapter)
        torch.testing.assert_close(adapted(ids).logits, expected, atol=1e-5, rtol=1e-4)
    taken = strop_command(*call)
    assert taken.code == 2
    assert "is there already and is not empty: choose another --out" in taken.err


def test_what_cannot_be_exported_is_refused_before_a_model_is_loaded(
    strop_command: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    edit = strop.RankReduction(strop.WeightSite(1, strop.MatrixType.UP), rank_fraction=0.5)
    Recipe.of(model, [edit]).save(tmp_path / "cut")
    refused = strop_command("export", "no/such-model", "--recipe", tmp_path / "cut", "--out", tmp_path / "adapter")
    assert refused.code == 1
    assert "what rank_reduction changes is of no low rank" in refused.err
    other = strop_command(
        "export", "no/such", "--recipe", tmp_path / "cut", "--out", tmp_path / "adapter", "--format", "x"
    )
    assert other.code == 2
    assert not (tmp_path / "adapter").exists()
