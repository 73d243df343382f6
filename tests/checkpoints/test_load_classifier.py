"""Classifiers: a head drawn by the seed where the checkpoint has none, padding the model knows, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from transformers import AutoModel, PreTrainedTokenizerFast

import strop
from strop.checkpoints import head_parameters, is_classifier, load_classifier
from strop.errors import CheckpointError, InterventionError, UsageError
from strop.interventions import Head
from strop.scoring.class_scorer import refuse_no_classifier
from strop.tasks import Labels

Tiny = Callable[..., Any]


def test_a_head_is_drawn_by_the_seed_and_the_rest_is_the_checkpoints(tiny_folder: Path, tiny: Tiny) -> None:
    state = torch.get_rng_state()
    model, tokenizer = load_classifier(str(tiny_folder), labels=["no", "yes", "perhaps"])
    assert torch.equal(torch.get_rng_state(), state)
    again, _ = load_classifier(str(tiny_folder), labels=3)
    other, _ = strop.load_classifier(str(tiny_folder), labels=3, seed=1)
    assert is_classifier(model)
    assert (model.config.num_labels, model.config.id2label) == (3, {0: "no", 1: "yes", 2: "perhaps"})
    assert model.score.weight.shape == (3, 32)
    assert torch.equal(model.score.weight, again.score.weight)
    assert not torch.equal(model.score.weight, other.score.weight)
    base = tiny("llama").state_dict()
    assert all(torch.equal(own, base[name]) for name, own in model.state_dict().items() if name != "score.weight")
    assert not model.training
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bert", "roberta"])
def test_a_head_of_the_checkpoint_is_kept_and_one_of_other_labels_is_drawn_anew(
    tiny_classifier: Tiny, small_tokenizer: Any, tmp_path: Path, model_type: str
) -> None:
    trained = tiny_classifier(model_type, 2)
    trained.config.id2label, trained.config.label2id = {0: "a", 1: "b"}, {"a": 0, "b": 1}
    trained.save_pretrained(tmp_path / "model")
    small_tokenizer.save_pretrained(tmp_path / "model")
    same, _ = load_classifier(str(tmp_path / "model"), labels=2)
    other, _ = load_classifier(str(tmp_path / "model"), labels=1)
    assert same.config.id2label == {0: "a", 1: "b"}
    for name, own in head_parameters(trained).items():
        assert torch.equal(own, head_parameters(same)[name])
        assert (
            own.shape == head_parameters(other)[name].shape
            or other.config.num_labels in head_parameters(other)[name].shape
        )
    assert other(**small_tokenizer("The city", return_tensors="pt")).logits.shape == (1, 1)


def test_a_tokenizer_without_padding_pads_with_its_end_of_text(
    tiny: Tiny, small_tokenizer: Any, tmp_path: Path
) -> None:
    tiny("gpt2", pad_token_id=None).save_pretrained(tmp_path)
    for ends in ({"eos_token": "<|end|>"}, {}):
        PreTrainedTokenizerFast(tokenizer_object=small_tokenizer.backend_tokenizer, **ends).save_pretrained(tmp_path)
        if ends:
            model, tokenizer = load_classifier(str(tmp_path), labels=2)
            assert model.config.pad_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id
        else:
            with pytest.raises(CheckpointError, match="has neither a padding nor an end-of-text token"):
                load_classifier(str(tmp_path), labels=2)


def test_what_is_no_classifier_of_that_model_is_refused(tiny_folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="A classifier has one label or more"):
        load_classifier(str(tiny_folder), labels=[])
    with pytest.raises(CheckpointError, match="There is no model 'nowhere'"):
        load_classifier("nowhere", labels=2)
    shutil.copytree(tiny_folder, tmp_path / "torn")
    tensors = load_file(tmp_path / "torn" / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "torn" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"lacks 1 of LlamaFor\w+'s weights beside its head \(model\.layers\.1\.mlp\.up"
    ):
        load_classifier(str(tmp_path / "torn"), labels=2)


def test_only_a_classifier_has_a_head(tiny: Tiny, tiny_classifier: Tiny) -> None:
    assert head_parameters(tiny("llama")) == {}
    assert head_parameters(AutoModel.from_config(tiny("llama").config)) == {}
    assert set(head_parameters(tiny_classifier("gpt2"))) == {"score.weight"}


def ending_with(token: str, small_tokenizer: Any, folder: Path, **named: str) -> None:
    """Write a tokenizer that ends every text with a token, and pads with it."""
    own = Tokenizer.from_str(small_tokenizer.backend_tokenizer.to_str())
    own.add_special_tokens([token])
    last = (token, own.token_to_id(token))
    own.post_processor = processors.TemplateProcessing(single=f"$A {token}", special_tokens=[last])
    PreTrainedTokenizerFast(tokenizer_object=own, eos_token=token, **named).save_pretrained(folder)


def test_where_texts_end_with_the_padding_token_another_pads_and_the_head_reads_the_last_token(
    tiny: Tiny, small_tokenizer: Any, tmp_path: Path
) -> None:
    tiny("llama", pad_token_id=None).save_pretrained(tmp_path)
    ending_with("!", small_tokenizer, tmp_path, bos_token="<|end|>")
    model, tokenizer = load_classifier(str(tmp_path), labels=2)
    assert model.config.pad_token_id == tokenizer.pad_token_id == tokenizer.bos_token_id
    batch = tokenizer(["The", "The city of"], padding=True, return_tensors="pt", return_token_type_ids=False)
    changed = batch["input_ids"].clone()
    changed[batch["input_ids"] == tokenizer.eos_token_id] = 7
    with torch.no_grad():
        found, other = model(**batch).logits, model(**{**batch, "input_ids": changed}).logits
    assert bool(((found - other).abs().amax(1) > 1e-3).all())


def test_a_padding_token_that_ends_every_text_is_refused_where_there_is_no_other(
    tiny: Tiny, small_tokenizer: Any, tmp_path: Path
) -> None:
    tiny("llama", pad_token_id=None).save_pretrained(tmp_path)
    ending_with("!", small_tokenizer, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"ends texts with '!' and pads with it, .* give it a padding token of its"
    ):
        load_classifier(str(tmp_path), labels=2)


def test_labels_in_another_order_than_the_heads_are_refused(
    tiny_classifier: Tiny, tiny_folder: Path, small_tokenizer: Any, tmp_path: Path
) -> None:
    trained = tiny_classifier("llama", 2)
    trained.config.id2label, trained.config.label2id = {0: "Yes", 1: "no"}, {"Yes": 0, "no": 1}
    trained.save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="has its labels in another order: give them as Yes, no"):
        load_classifier(str(tmp_path), labels=["no", "yes"])
    named, _ = load_classifier(str(tmp_path), labels=["yes", "no"])
    assert named.config.id2label == {0: "yes", 1: "no"}
    load_classifier(str(tmp_path), labels=["bad", "good"])
    with pytest.raises(InterventionError, match="has the labels in another order, yes, no, and 2 labels"):
        Head.of(named, ("no", "yes"))
    with pytest.raises(
        UsageError, match=r"labels \(no, yes\) stand in another order than the outputs of this .*\(yes, no\)"
    ):
        refuse_no_classifier(named, Labels(("no", "yes"), metric="accuracy"))
    refuse_no_classifier(named, Labels(("yes", "no"), metric="accuracy"))
    anew, _ = load_classifier(str(tiny_folder), labels=["LABEL_1", "LABEL_0"])  # a head that was drawn has no order yet
    assert anew.config.id2label == {0: "LABEL_1", 1: "LABEL_0"}
