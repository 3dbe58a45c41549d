"""Tries the adapter of a trainer in the real trainer, in a virtual environment of its own.

`python scripts/try_trainer.py axolotl` installs the trainer into ~/.cache/vlmcollate-trainers, or
VLMCOLLATE_TRAINERS, and runs its tests there. What a trainer shares with the library, such as
torch, comes from the Python that runs this script, with the test extra; the rest is pinned here,
since trainers exclude one another's transformers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAINERS = {
    "energon": "megatron-energon==7.4.1",
    "axolotl": "axolotl==0.19.0",
    "ms_swift": "ms-swift==4.6.0",
    "verl": "verl==0.9.1",
}
"""The release that each module of vlmcollate.integrations was written for."""
REQUIREMENTS = {
    "energon": """
        aiobotocore==3.10.0 aioitertools==0.13.0 botocore==1.43.117 braceexpand==0.1.7
        bracex==3.2.3 deprecation==2.1.0 filetype==1.2.0 fsspec==2026.9.0 jmespath==1.1.0
        lark==1.3.1 mfusepy==3.1.1 multi-storage-client==1.3.1 opentelemetry-api==1.45.2
        prettytable==3.18.0 pyroute2==0.9.7 python-dateutil==2.9.0.post0 rapidyaml==0.15.2
        s3fs==2026.9.0 six==1.17.0 wcmatch==10.2.1 wcwidth==0.9.4 webdataset==1.0.2 wrapt==2.5.2
        xattr==1.3.0
    """,
    "axolotl": """
        accelerate==1.13.0 addict==2.4.0 art==6.5 axolotl-contribs-lgpl==0.0.7
        axolotl-contribs-mit==0.0.6 backoff==2.2.1 bitsandbytes==0.50.2 datasets==4.8.4
        distro==1.9.0 einops==0.8.2 evaluate==0.4.1 fastcore==2.2.41 fire==0.7.1 fsspec==2025.10.0
        gitdb==4.0.12 gitpython==3.2.1 httpcore==1.0.9 httpx==0.28.1 huggingface-hub==1.17.0
        kernels==0.16.0 kernels-data==0.16.2 llvmlite==0.50.0 numba==0.68.1 peft==0.20.0
        posthog==6.7.11 protobuf==6.33.6 pydantic==2.12.5 pydantic-core==2.41.5
        python-dotenv==1.2.4 responses==0.26.3 sentry-sdk==2.75.0 six==1.17.0 smmap==5.0.3
        termcolor==3.3.0 tokenizers==0.23.1 transformers==5.16.1 trl==1.9.0 wandb==0.22.3
    """,
    "ms_swift": """
        addict==2.4.0 attrdict==2.0.1 binpacking==2.0.1 dacite==1.9.2 datasets==4.8.4
        distro==1.9.0 einops==0.8.2 fastapi==0.165.0 httpx==0.28.1 jiter==0.19.0
        json-repair==0.64.6 modelscope==1.40.2 modelscope-hub==0.5.1 nltk==3.10.4 openai==3.57.0
        oss2==2.19.1 peft==0.20.0 rouge==1.0.1 simplejson==4.3.0 starlette==1.10.0
        tensorboard==2.21.0 transformers==5.19.0 trl==0.29.1 uvicorn==0.54.0 zstandard==0.25.0
    """,
    "verl": """
        antlr4-python3-runtime==4.9.3 cloudpickle==3.1.3 codetiming==1.4.0 hydra-core==1.3.8
        omegaconf==2.3.0 orjson==3.13.0 pylatexenc==2.11 pyvers==0.2.3 tensordict==0.10.0
    """,
}
"""What each needs beside the packages of the library's own environment."""


def build(name: str) -> Path:
    """Builds the environment of a trainer unless it is there; returns its Python."""
    default = Path.home() / ".cache" / "vlmcollate-trainers"
    folder = Path(os.environ.get("VLMCOLLATE_TRAINERS", default)) / TRAINERS[name]
    python = folder / "bin" / "python"
    done = folder / "complete"
    if done.is_file():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    shared = Path(sysconfig.get_path("purelib"))
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(f"{shared}\n", encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, TRAINERS[name], *REQUIREMENTS[name].split()], check=True)
    done.touch()
    return python


def main() -> int:
    """Builds an environment, runs the tests of its trainer, and returns their exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TRAINERS)
    parser.add_argument("options", nargs="*", help="options of pytest, after --")
    given = parser.parse_args()
    python = build(given.name)
    tests = f"tests/trainers/test_{given.name}.py"
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", tests, *given.options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
