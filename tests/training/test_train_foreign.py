"""Edits learn under other trainers, beside adapters and in pipelines, for the model stays what it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments, pipeline

import strop
from strop.anatomy import StreamSite
from strop.checkpoints.quiet import quiet_transformers
from strop.errors import InterventionError, StropWarning, TrainingError
from strop.interventions import LowRankEdit, Positions
from strop.recipe import Recipe
from strop.training import InterventionCheckpoints

pytestmark = pytest.mark.thorough

OLD_NAME = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")
"""The name peft and trl call activation checkpointing by."""

QUIET: dict[str, Any] = {
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "logging_strategy": "no",
    "per_device_train_batch_size": 8,
    "learning_rate": 0.03,
    "num_train_epochs": 8,
}


@pytest.fixture
def fresh() -> Callable[[Any], Recipe]:
    """A recipe for a model with an edit that changes nothing yet."""

    def make(model: Any) -> Recipe:
        edits = [LowRankEdit(StreamSite(layer), "loreft", rank=4, positions=Positions(0, 1)) for layer in (1, 2)]
        generator = torch.Generator().manual_seed(0)
        return Recipe.of(model, edits, tensors=[edit.initial_tensors((32, 32), generator=generator) for edit in edits])

    return make


@pytest.fixture
def rows(planted: Any, small_tokenizer: Any) -> list[dict[str, list[int]]]:
    """The planted task's train split as any trainer takes it: left-padded ids, a mask, labels on the answer."""
    found = []
    for example in planted.examples("train"):
        prompt = small_tokenizer(example.prompt)["input_ids"]
        ids = small_tokenizer(example.prompt + example.answer)["input_ids"]
        spare = 16 - len(ids)
        found.append(
            {
                "input_ids": [0] * spare + ids,
                "attention_mask": [0] * spare + [1] * len(ids),
                "labels": [-100] * (spare + len(prompt)) + ids[len(prompt) :],
            }
        )
    return found


def trained_by(trainer: Trainer) -> Trainer:
    with quiet_transformers():
        trainer.train()
    return trainer


def test_the_plain_trainer_learns_and_the_recipe_keeps_it(
    tiny: Any, small_tokenizer: Any, planted: Any, rows: Any, fresh: Any, bits: Any, tmp_path: Path
) -> None:
    model = tiny("llama")
    before, recipe = bits(model), fresh(model)
    attachment = strop.attach(model, recipe, trainable=True)
    arguments = TrainingArguments(str(tmp_path), save_strategy="no", **QUIET)
    trained_by(Trainer(model, arguments, train_dataset=rows))
    learned = recipe.learned_by(attachment)
    attachment.detach()
    assert bits(model) == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    base = strop.evaluate(model, small_tokenizer, planted, split="test")
    learned.save(tmp_path / "recipe")
    with strop.applied(model, Recipe.load(tmp_path / "recipe")):
        edited = strop.evaluate(model, small_tokenizer, planted, split="test")
    assert base.accuracy < 0.1
    assert edited.accuracy > 0.4
    with strop.applied(model, recipe):
        unlearned = strop.evaluate(model, small_tokenizer, planted, split="test")
    assert unlearned.mean_loss == pytest.approx(base.mean_loss, rel=1e-6)


class Keeping(InterventionCheckpoints, Trainer):
    pass


def test_a_trainer_with_the_mixin_writes_recipes_and_goes_on_from_them(
    tiny: Any, rows: Any, fresh: Any, tmp_path: Path
) -> None:
    def run(out: Path, epochs: int, **changes: Any) -> tuple[Recipe, Keeping]:
        model = tiny("llama")
        recipe = fresh(model)
        attachment = strop.attach(model, recipe, trainable=True)
        arguments = TrainingArguments(
            str(out), save_strategy="epoch", lr_scheduler_type="constant", **{**QUIET, "num_train_epochs": epochs}
        )
        trainer = Keeping(model, arguments, train_dataset=rows)
        trainer.keep(attachment, recipe)
        with quiet_transformers():
            trainer.train(**changes)
        return recipe.learned_by(attachment), trainer

    whole, _ = run(tmp_path / "whole", 3)
    run(tmp_path / "run", 1)
    again, trainer = run(tmp_path / "run", 3, resume_from_checkpoint=True)
    assert again == whole
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint-12",
        "checkpoint-18",
        "checkpoint-6",
    ]
    assert Recipe.load(tmp_path / "run" / "checkpoint-18") == whole
    trainer.save_model()
    assert Recipe.load(tmp_path / "run") == whole
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".bin", ".pt", ".pth")]


def test_a_pipeline_on_an_attached_model_generates_as_the_model_does(
    training: Any, tiny: Any, small_tokenizer: Any
) -> None:
    model = tiny("llama")
    recipe = training().recipe
    prompts = ["03 in c", "11 in in a", "7 d"]

    def own(prompt: str) -> str:
        given = small_tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        (ids,) = model.generate(**given, max_new_tokens=4, do_sample=False)
        return str(small_tokenizer.decode(ids, skip_special_tokens=True))

    with quiet_transformers():
        generate = pipeline("text-generation", model=model, tokenizer=small_tokenizer, device="cpu")

        def piped(prompt: str) -> str:
            return str(generate(prompt, max_new_tokens=4, do_sample=False)[0]["generated_text"])

        plain = list(map(piped, prompts))
        with strop.applied(model, recipe):
            edited, expected = list(map(piped, prompts)), list(map(own, prompts))
    assert edited == expected
    assert edited != plain


@OLD_NAME
def test_edits_and_lora_learn_together_and_part_again(
    tiny: Any, rows: Any, fresh: Any, small_tokenizer: Any, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    inner = model.get_base_model()
    recipe = fresh(inner)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    asked = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    given = small_tokenizer("11 in a", return_tensors="pt", return_token_type_ids=False)
    attachment = strop.attach(model, recipe, trainable=True)
    trained_by(Trainer(model, TrainingArguments(str(tmp_path), save_strategy="no", **QUIET), train_dataset=rows))
    learned = recipe.learned_by(attachment)
    for mine, theirs in zip(learned.tensors, recipe.tensors, strict=True):
        assert not torch.equal(mine["source"], theirs["source"])
    both = model.generate(**given, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True)
    attachment.detach()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "lora_" in name}
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == asked
    assert "generate" not in vars(inner)
    alone = model.generate(**given, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True)
    assert not torch.equal(both.logits[0], alone.logits[0])
    with strop.applied(model, learned, force=True):
        again = model.generate(
            **given, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    assert torch.equal(again.logits[0], both.logits[0])


@OLD_NAME
def test_trls_trainer_keeps_recipes(tiny: Any, fresh: Any, small_tokenizer: Any, planted: Any, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    class Tuned(InterventionCheckpoints, trl.SFTTrainer):
        pass

    pairs = [{"prompt": example.prompt, "completion": example.answer} for example in planted.examples("train")]
    model = tiny("llama")
    recipe = fresh(model)
    with quiet_transformers():
        attachment = strop.attach(model, recipe, trainable=True)
        arguments = trl.SFTConfig(
            str(tmp_path / "out"),
            save_strategy="epoch",
            save_total_limit=2,
            bf16=False,
            gradient_checkpointing=False,
            **QUIET,
        )
        trainer = Tuned(model, arguments, train_dataset=Dataset.from_list(pairs), processing_class=small_tokenizer)
        trainer.keep(attachment, recipe)
        trainer.train()
    learned = recipe.learned_by(attachment)
    attachment.detach()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["checkpoint-42", "checkpoint-48"]
    assert Recipe.load(tmp_path / "out" / "checkpoint-48") == learned
    base = strop.evaluate(model, small_tokenizer, planted, split="test")
    with strop.applied(model, learned):
        edited = strop.evaluate(model, small_tokenizer, planted, split="test")
    assert edited.mean_loss < base.mean_loss - 1
    assert json.loads((tmp_path / "out" / "checkpoint-48" / "trainer_state.json").read_text())["global_step"] == 48


@OLD_NAME
def test_a_checkpoint_keeps_a_lora_that_learns_beside_the_edits(
    tiny: Any, rows: Any, fresh: Any, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")

    def run(out: Path, **changes: Any) -> tuple[Recipe, dict[str, torch.Tensor], Keeping]:
        base = tiny("llama")
        settings = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        torch.manual_seed(0)
        model, recipe = peft.get_peft_model(base, settings), fresh(base)
        attachment = strop.attach(model, recipe, trainable=True)
        arguments = TrainingArguments(
            str(out), save_strategy="epoch", lr_scheduler_type="constant", **{**QUIET, "num_train_epochs": 2}
        )
        trainer = Keeping(model, arguments, train_dataset=rows)
        trainer.keep(attachment, recipe)
        with quiet_transformers():
            trainer.train(**changes)
        adapters = {name: own.detach().clone() for name, own in model.named_parameters() if "lora_" in name}
        return recipe.learned_by(attachment), adapters, trainer

    edits, adapters, trainer = run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "checkpoint-6", tmp_path / "run" / "checkpoint-6")
    again, resumed, _ = run(tmp_path / "run", resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))
    assert again == edits
    assert all(torch.equal(own, adapters[name]) for name, own in resumed.items())
    assert any(bool(own.any()) for name, own in adapters.items() if "lora_B" in name)
    trainer.save_model()
    assert Recipe.load(tmp_path / "whole") == edits
    assert (tmp_path / "whole" / "adapter_model.safetensors").is_file()
    (tmp_path / "run" / "checkpoint-6" / "learned_beside.safetensors").unlink()
    with pytest.raises(TrainingError, match="other parameters learned beside the edits .*resume with the same model"):
        run(tmp_path / "run", resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))


def test_what_else_learns_is_never_left_out_of_a_saved_model_in_silence(
    tiny: Any, rows: Any, fresh: Any, tmp_path: Path
) -> None:
    model = tiny("llama")
    recipe = fresh(model)
    attachment = strop.attach(model, recipe, trainable=True)
    model.lm_head.weight.requires_grad_(True)
    trainer = Keeping(model, TrainingArguments(str(tmp_path / "out"), save_strategy="no", **QUIET), train_dataset=rows)
    trainer.keep(attachment, recipe)
    with pytest.raises(TrainingError, match=r"not in the recipe \(lm_head.weight\); save it yourself, or freeze it"):
        trainer.save_model()
    model.lm_head.weight.requires_grad_(False)
    trainer.save_model()


@pytest.mark.parametrize("limit", [None, 1])
def test_the_best_checkpoint_is_what_a_trainer_ends_with(
    limit: int | None, tiny: Any, rows: Any, fresh: Any, tmp_path: Path
) -> None:
    model = tiny("llama")
    recipe = fresh(model)
    attachment = strop.attach(model, recipe, trainable=True)
    wrong = [{**row, "labels": [label if label == -100 else 300 for label in row["labels"]]} for row in rows[:8]]
    arguments = TrainingArguments(
        str(tmp_path), save_strategy="epoch", eval_strategy="epoch", load_best_model_at_end=True, save_total_limit=limit,
        lr_scheduler_type="constant", **{**QUIET, "num_train_epochs": 3, "logging_strategy": "epoch"},
    )  # fmt: skip
    trainer = Keeping(model, arguments, train_dataset=rows, eval_dataset=wrong)
    trainer.keep(attachment, recipe)
    trained_by(trainer)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    best = losses.index(min(losses))
    assert best != 2
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{6 * (best + 1)}")
    with quiet_transformers():
        assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-6)
    assert recipe.learned_by(attachment) == Recipe.load(tmp_path / f"checkpoint-{6 * (best + 1)}")


@pytest.mark.parametrize("reach", ["f1", "prompt"])
def test_rows_without_a_prompt_before_their_labels_are_refused(
    reach: str, tiny: Any, rows: Any, tmp_path: Path
) -> None:
    model = tiny("llama")
    edit = LowRankEdit(StreamSite(1), "loreft", rank=2, positions=Positions.parse(reach))
    recipe = Recipe.of(model, [edit], tensors=[edit.initial_tensors(32)])
    attachment = strop.attach(model, recipe, trainable=True)
    whole = [{**row, "labels": [t if m else -100 for t, m in zip(row["input_ids"], row["attention_mask"], strict=True)]}
             for row in rows]  # fmt: skip
    trainer = Trainer(model, TrainingArguments(str(tmp_path), save_strategy="no", **QUIET), train_dataset=whole)
    with pytest.raises(InterventionError) as caught:
        trained_by(trainer)
    assert str(caught.value) == (
        f"No row of the batch has a prompt before its labels, so an edit at {reach} touches nothing; give prompts and "
        "completions, or edit at all."
    )
    attachment.detach()
    for learnable in ([*whole[:7], rows[0]], rows):  # one row with a prompt is enough
        attachment = strop.attach(model, recipe, trainable=True)
        arguments = TrainingArguments(str(tmp_path), save_strategy="no", **{**QUIET, "num_train_epochs": 1})
        trained_by(Trainer(model, arguments, train_dataset=learnable))
        assert recipe.learned_by(attachment) != recipe
        attachment.detach()


def test_rows_without_a_label_are_noted(tiny: Any, rows: Any, tmp_path: Path) -> None:
    model = tiny("llama")
    edit = LowRankEdit(StreamSite(1), "loreft", rank=2, positions=Positions.parse("f1"))
    recipe = Recipe.of(model, [edit], tensors=[edit.initial_tensors(32)])
    attachment = strop.attach(model, recipe, trainable=True)
    unlabelled = [{**row, "labels": [-100] * len(row["input_ids"])} for row in rows]
    arguments = TrainingArguments(str(tmp_path), save_strategy="no", **{**QUIET, "num_train_epochs": 1})
    with pytest.warns(StropWarning) as noted:
        trained_by(Trainer(model, arguments, train_dataset=unlabelled))
    assert {str(one.message) for one in noted if one.category is StropWarning} == {
        "No row of a batch has a label, for all are -100, so that nothing is learned from it; give completions behind the "
        "prompts, or let rows be longer."
    }
    assert recipe.learned_by(attachment) == recipe
    attachment.detach()
