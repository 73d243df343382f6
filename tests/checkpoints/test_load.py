"""Loading a model by name, folder or hub id, and what is said when that fails."""

import json
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers.utils import logging

import strop
from strop.checkpoints import identify, load, load_classifier
from strop.errors import CheckpointError


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    """A tiny checkpoint to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copied"))


def test_a_folder_gives_a_model_in_evaluation_mode_and_its_fast_tokenizer(tiny_folder: Path) -> None:
    model, tokenizer = load(str(tiny_folder))
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not any(module.training for module in model.modules())
    assert model.dtype == torch.float32
    assert tokenizer.is_fast
    assert tokenizer.decode(tokenizer(" Lyon").input_ids) == " Lyon"
    stored = load_file(tiny_folder / "model.safetensors")
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight, stored["model.layers.1.mlp.up_proj.weight"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_asked_for_is_the_dtype_given(dtype: torch.dtype, tiny_folder: Path) -> None:
    model, _ = load(str(tiny_folder), dtype=dtype, device="cpu")
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_the_checkpoints_own_dtype_is_the_default(tiny, small_tokenizer, tmp_path: Path) -> None:
    tiny("llama").bfloat16().save_pretrained(tmp_path / "half")
    small_tokenizer.save_pretrained(tmp_path / "half")
    model, _ = load(str(tmp_path / "half"))
    assert model.dtype == torch.bfloat16


def test_transformers_own_settings_are_left_as_they_were(tiny_folder: Path) -> None:
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    load(str(tiny_folder))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    with pytest.raises(CheckpointError):
        load("nothing-of-that-name")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "../nothing", "models/of/mine", "~/nothing"])
def test_a_missing_folder_is_named_with_what_to_give_instead(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load(name)
    message = str(caught.value)
    assert f"The model folder '{name}' is not there; give a folder with a config.json, a hub id, or" in message
    assert "smollm2-135m" in message


def test_an_empty_name_is_refused_whatever_the_working_folder_holds(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder)
    with pytest.raises(CheckpointError, match="The model folder '' is not there; give a folder"):
        load("")


def test_a_file_is_refused_as_a_file(tiny_folder: Path) -> None:
    path = tiny_folder / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"model\.safetensors' is a file; give a folder with a config\.json"):
        load(str(path))


def test_a_folder_without_a_config_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(
        CheckpointError, match=rf"The folder {tmp_path} holds no config\.json, so it is not a saved model"
    ):
        load(str(tmp_path))


def test_a_bare_word_that_is_no_zoo_name_is_refused_without_asking_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*arguments: object, **settings: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", asked)
    with pytest.raises(
        CheckpointError, match=r"no model 'smollm': it is neither a folder here nor a zoo name \(smollm2"
    ):
        load("smollm")


def test_a_hub_id_without_a_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match=r"^The model 'nobody/nothing-of-this-name' cannot be loaded: .+\.$"
    ) as caught:
        load("nobody/nothing-of-this-name")
    assert "\n" not in str(caught.value)


def test_a_config_of_no_known_architecture_is_one_sentence(copied: Path) -> None:
    (copied / "config.json").write_text('{"model_type": "no_such_architecture"}')
    with pytest.raises(
        CheckpointError, match=r"^The model '.*copied' cannot be loaded: .*no_such_architecture"
    ) as caught:
        load(str(copied))
    assert "\n" not in str(caught.value)


def test_a_damaged_config_is_one_sentence(copied: Path) -> None:
    (copied / "config.json").write_text("{half")
    with pytest.raises(CheckpointError, match=r"^The model '.*copied' cannot be loaded: .*config\.json.*\.$"):
        load(str(copied))


def test_damaged_weights_are_one_sentence(copied: Path) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"^The model '.*copied' cannot be loaded: .+\.$") as caught:
        load(str(copied))
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_one_sentence(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(CheckpointError, match=r"^The model '.*copied' cannot be loaded: .+\.$") as caught:
        load(str(copied))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_lacks_weights_is_refused_and_not_filled_with_noise(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["lm_head.weight"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"copied' lacks 2 of LlamaForCausalLM's weights \(lm_head\.weight, model\.l"
    ):
        load(str(copied))


def test_a_model_that_ties_its_head_is_not_taken_for_one_that_lacks_it(tiny, small_tokenizer, tmp_path: Path) -> None:
    tiny("llama", tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    small_tokenizer.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    model, _ = load(str(tmp_path / "tied"))
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_threads_load_one_after_the_other(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = [], []
    read = transformers.AutoModelForCausalLM.from_pretrained

    def slowly(*arguments, **settings):
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.05)
        model = read(*arguments, **settings)
        inside.pop()
        return model

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", slowly)
    ties = transformers.PreTrainedModel.tie_weights
    with ThreadPoolExecutor(3) as pool:
        assert len(list(pool.map(load, [str(copied)] * 3))) == 3
    assert most == [1, 1, 1]
    assert transformers.PreTrainedModel.tie_weights is ties


def test_a_folder_without_a_tokenizer_is_one_sentence(copied: Path) -> None:
    for path in copied.glob("*token*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"^The model '.*copied' cannot be loaded: .+\.$") as caught:
        load(str(copied))
    assert "\n" not in str(caught.value)


def test_a_slow_tokenizer_is_refused_with_its_reason_and_remedy(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        is_fast = False

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *arguments, **settings: Slow())
    with pytest.raises(CheckpointError, match=r"tokenizer of '.*tiny-llama' is not a fast one.*use_fast=True"):
        load(str(tiny_folder))


# What lies in a folder beside a model, or in its place


@pytest.mark.parametrize("name", ["x" * 5000, "/" + "y" * 5000, "a\x00b", "./\x00", "a\nb"])
def test_what_is_no_path_at_all_is_one_sentence(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"There is no model '|The model folder '") as caught:
        load(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=rf"The folder {tmp_path} holds no config\.json, so it is not a saved model"
    ):
        load(str(tmp_path))


@pytest.mark.parametrize(
    "content", ["[]", "null", '"llama"', '{"model_type": "llama", "hidden_size": "wide"}', "{}", "\x00"]
)
def test_a_config_of_anything_else_is_one_sentence(content: str, copied: Path) -> None:
    (copied / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"^The model '.*copied' cannot be loaded: .+\.$") as caught:
        load(str(copied))
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_a_file_is_one_sentence(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    (copied / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"^The model '.*copied' cannot be loaded: .+\.$"):
        load(str(copied))


@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_weights_that_are_cut_off_are_one_sentence(size: int, copied: Path) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"^The model '.*copied' cannot be loaded: .+\.$"):
        load(str(copied))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of PEFT
def test_an_adapter_beside_whole_weights_is_refused_and_not_applied_to_them(copied: Path) -> None:
    adapted = get_peft_model(load(str(copied))[0], LoraConfig(r=2, target_modules=["up_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(copied)
    with pytest.raises(
        CheckpointError,
        match=r"copied holds an adapter \(adapter_config\.json\) beside whole weights, .*: merge it first",
    ):
        load(str(copied))
    with pytest.raises(CheckpointError, match="holds an adapter .* beside whole weights"):
        load_classifier(str(copied), labels=2)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of PEFT
def test_an_adapter_alone_is_refused_with_what_to_do(tiny_folder: Path, tmp_path: Path) -> None:
    adapted = get_peft_model(
        load(str(tiny_folder))[0], LoraConfig(r=2, target_modules=["up_proj"], task_type="CAUSAL_LM")
    )
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"holds an adapter \(adapter_config\.json\) alone: merge it first"):
        load(str(tmp_path / "adapter"))


def test_pickled_weights_are_not_opened(copied: Path) -> None:
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(copied / "sprung")))
    assert load(str(copied))[0] is not None  # beside safetensors it is not looked at
    (copied / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"The weights in .*copied are pickled \(pytorch_model\.bin\), .* save_pretrained, which"
    ):
        load(str(copied))
    assert not (copied / "sprung").exists()


def test_a_quantised_folder_that_cannot_be_read_here_is_one_sentence(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"^The model '.*copied' cannot be loaded: .*bitsandbytes.*\.$") as caught:
        load(str(copied))
    assert "\n" not in str(caught.value)


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


@pytest.fixture
def never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*arguments: object, **settings: object) -> str:
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", asked)


CODE = "from transformers import LlamaConfig\nopen({ran!r}, 'w').close()\nclass Own(LlamaConfig):\n    model_type = 'own'\n"


@pytest.mark.parametrize("what", ["config", "model", "tokenizer", "generation"])
@pytest.mark.usefixtures("never_asked")
def test_code_in_a_model_folder_is_neither_run_nor_asked_about(
    what: str, copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = copied / "RAN"
    (copied / "own.py").write_text(CODE.format(ran=str(ran)))
    config = json.loads((copied / "config.json").read_text())
    if what == "config":
        (copied / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}))
    elif what == "model":  # of an architecture transformers knows: its own class is taken
        mapped = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
        (copied / "config.json").write_text(json.dumps({**config, "auto_map": mapped}))
    elif what == "tokenizer":
        settings = json.loads((copied / "tokenizer_config.json").read_text())
        settings.update(tokenizer_class="OwnTokenizer", auto_map={"AutoTokenizer": ["own.Own", None]})
        (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    else:
        (copied / "custom_generate").mkdir()
        (copied / "custom_generate" / "generate.py").write_text(CODE.format(ran=str(ran)))
    if what in ("model", "generation"):
        assert type(load(str(copied))[0]).__name__ == "LlamaForCausalLM"
    else:
        with pytest.raises(
            CheckpointError, match=r"cannot be loaded: it brings Python code of its own, which Strop never"
        ):
            load(str(copied))
    assert not ran.exists()
    assert capfd.readouterr().out == ""


# Which model this is


def test_a_models_identity_names_folder_class_and_weights(tiny_folder: Path) -> None:
    model, _ = load(str(tiny_folder))
    found = identify(model)
    assert (found.id, found.revision, found.architecture) == (str(tiny_folder), None, "LlamaForCausalLM")
    assert len(found.fingerprint) == 32
    assert identify(load(str(tiny_folder))[0]) == found


def test_a_model_without_a_name_is_called_by_its_class(tiny) -> None:
    assert identify(tiny("gpt2")).id == "GPT2LMHeadModel"


def test_one_bit_of_any_parameter_changes_the_fingerprint(tiny) -> None:
    model = tiny("llama")
    seen = {identify(model).fingerprint}
    for parameter in model.parameters():
        bits = parameter.data.view(torch.int32).view(-1)
        bits[-1] ^= 1
        seen.add(identify(model).fingerprint)
        bits[-1] ^= 1
    assert len(seen) == 1 + len(list(model.parameters()))
    assert identify(model).fingerprint in seen


def test_dtype_and_swapped_parameters_change_the_fingerprint(tiny) -> None:
    model = tiny("llama")
    plain = identify(model).fingerprint
    mlp = model.model.layers[0].mlp
    mlp.up_proj, mlp.gate_proj = mlp.gate_proj, mlp.up_proj
    swapped = identify(model).fingerprint
    assert len({plain, swapped, identify(tiny("llama").half()).fingerprint}) == 3


@pytest.mark.real
def test_a_zoo_model_is_called_by_its_zoo_name(real) -> None:
    found = identify(real[0])
    assert (found.id, found.architecture) == ("smollm2-135m", "LlamaForCausalLM")
    assert found.id in strop.ZOO


@pytest.mark.real
def test_the_zoo_model_is_the_one_that_is_described(real) -> None:
    model, tokenizer = real
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.dtype == torch.float32
    assert len(model.model.layers) == 30
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


@pytest.mark.parametrize(("inside", "what"), [("", "a recipe"), ("recipe", "a run")])
def test_a_folder_of_a_run_or_a_recipe_is_told_from_a_model(inside: str, what: str, tmp_path: Path) -> None:
    made = tmp_path / inside
    made.mkdir(exist_ok=True)
    (made / "recipe.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"The folder {tmp_path} holds {what}, and no model; name the base model, and give the recipe by --recipe {made}."
    )


def test_a_checkpoint_in_several_files_is_loaded_and_a_missing_one_is_named(
    tiny, small_tokenizer, tmp_path: Path
) -> None:
    whole = tiny("llama")
    whole.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    small_tokenizer.save_pretrained(tmp_path / "shards")
    model, _ = load(tmp_path / "shards")
    assert identify(model).fingerprint == identify(whole).fingerprint
    gone = sorted((tmp_path / "shards").glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(CheckpointError, match=rf"^The model '.*shards' cannot be loaded: .*{gone.name}") as caught:
        load(tmp_path / "shards")
    assert "\n" not in str(caught.value)


def test_a_body_without_a_head_is_refused_by_what_it_is_and_taken_to_be_looked_at(
    tiny, small_tokenizer, tmp_path: Path
) -> None:
    tiny("bert").base_model.save_pretrained(tmp_path / "body")
    small_tokenizer.save_pretrained(tmp_path / "body")
    with pytest.raises(
        CheckpointError, match="body' holds a BertModel without a head; strop inspect shows its matrices"
    ):
        load(tmp_path / "body")
    model, _ = load(tmp_path / "body", headless=True)
    assert type(model).__name__ == "BertModel"
    assert strop.Anatomy.of(model).layer_count == 3
