"""Ways in which a file gets damaged; each is done to a file, or says that it cannot be done to that one."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

JUNK = (b"", b"{", b"{}", b"[]", b"null", b"nan", b"\xff\xfe", b"[" * 100_000, b'{"files": 3}', b'{"step": "4"}')


@dataclass(frozen=True)
class Site:
    """A file, and others of its name."""

    file: Path
    older: Path
    """That of the checkpoint before."""
    others: Path
    """That of another model's run."""
    rng: random.Random

    def put(self, data: bytes) -> bool:
        """Write other bytes; False where they are no others."""
        changed = data != self.file.read_bytes()
        self.file.write_bytes(data)
        return changed

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """What it holds, where it holds tensors."""
        return load_file(self.file) if self.file.suffix == ".safetensors" else {}

    @property
    def manifest(self) -> Path:
        """Of its checkpoint, where it has one."""
        return _checkpoint(self.file) / "manifest.json"


def _checkpoint(file: Path) -> Path:
    return next(folder for folder in file.parents if folder.name.startswith("step_"))


def truncated(site: Site) -> bool:
    data = site.file.read_bytes()
    return site.put(data[: site.rng.randrange(len(data))])


def flipped(site: Site) -> bool:
    data = bytearray(site.file.read_bytes())
    data[site.rng.randrange(len(data))] ^= 1 << site.rng.randrange(8)
    return site.put(bytes(data))


def another(path: Path, site: Site) -> bool:
    return path.is_file() and site.put(path.read_bytes())


def without_a_tensor(site: Site) -> bool:
    if not (held := site.tensors):
        return False
    lost = site.rng.choice(sorted(held))
    save_file({name: tensor for name, tensor in held.items() if name != lost}, site.file, {"format": "pt"})
    return True


def with_nan(site: Site) -> bool:
    held = site.tensors
    names = sorted(name for name, tensor in held.items() if tensor.is_floating_point() and tensor.dim())
    if not names:
        return False
    tensor = held[site.rng.choice(names)].view(-1)
    tensor[site.rng.randrange(len(tensor))] = torch.nan
    save_file(held, site.file, {"format": "pt"})
    return True


def junk(site: Site) -> bool:
    return site.file.suffix == ".json" and site.put(site.rng.choice(JUNK))


def folder(site: Site) -> bool:
    site.file.unlink()
    site.file.mkdir()
    return True


def dangling(site: Site) -> bool:
    site.file.unlink()
    site.file.symlink_to("nowhere")
    return True


def renamed(site: Site) -> bool:
    site.file.rename(site.file.with_name(f"{site.file.stem}-2{site.file.suffix}"))
    return True


def removed(site: Site) -> bool:
    site.file.unlink()
    return True


def manifest_removed(site: Site) -> bool:
    return site.file.name == "manifest.json" and removed(site)


def manifest_edited(site: Site) -> bool:
    """Another checksum, another size, a file less, or one more."""
    if not site.manifest.exists():
        return False
    said = json.loads(site.manifest.read_text())
    files, name = said["files"], site.rng.choice(sorted(said["files"]))
    match site.rng.randrange(4):
        case 0:
            files[name]["sha256"] = files[name]["sha256"][::-1]
        case 1:
            files[name]["size"] += 1
        case 2:
            del files[name]
        case _:
            files["model/more.json"] = files[name]
    site.manifest.write_text(json.dumps(said))
    return True


def older_checkpoint(site: Site) -> bool:
    """The whole one before, under the newest one's name."""
    newest, older = _checkpoint(site.file), _checkpoint(site.older)
    shutil.rmtree(newest)
    shutil.copytree(older, newest)
    return True


WAYS: dict[str, Callable[[Site], bool]] = {
    "cut at a random length": truncated,
    "emptied": lambda site: site.put(b""),
    "removed": removed,
    "one bit flipped": flipped,
    "zeros of the same size": lambda site: site.put(bytes(site.file.stat().st_size)),
    "something appended": lambda site: site.put(site.file.read_bytes() + b"\0"),
    "the older checkpoint's": lambda site: another(site.older, site),
    "another model's": lambda site: another(site.others, site),
    "without a tensor": without_a_tensor,
    "NaN in a tensor": with_nan,
    "junk for JSON": junk,
    "a folder in its place": folder,
    "a link to nowhere": dangling,
    "under another name": renamed,
    "manifest removed": manifest_removed,
    "manifest edited": manifest_edited,
    "the older one, renamed": older_checkpoint,
}
