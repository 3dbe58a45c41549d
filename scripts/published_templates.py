"""Extracts the chat templates that packages carry, without an import of the packages."""

from __future__ import annotations

import ast
import enum
import itertools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Templates = Iterator[tuple[str, str]]


def of_trl(wheel: zipfile.ZipFile) -> Templates:
    """Yields the names and texts of trl's templates."""
    yield from _files(wheel, "trl/chat_templates/")


def of_axolotl(wheel: zipfile.ZipFile) -> Templates:
    """Yields the names and texts of axolotl's templates."""
    yield from _files(wheel, "axolotl/utils/chat_templates/templates/")


def of_unsloth(wheel: zipfile.ZipFile) -> Templates:
    """Yields the names and texts of unsloth's templates, most of which are Python strings."""
    yield from _files(wheel, "studio/backend/assets/chat_templates/")
    found: dict[str, Any] = {"__builtins__": {}}
    for node in _parse(wheel, "unsloth/chat_templates.py").body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        expression = compile(ast.Expression(node.value), name, "eval")
        try:
            found[name] = eval(expression, found)  # noqa: S307  # strings, joined and replaced
        except (NameError, TypeError):  # it calls what is not there
            continue
        if name.endswith("_template") and not name.startswith("_"):
            yield name.removesuffix("_template"), found[name]


class _Words(str, enum.Enum):
    """Python 3.11's StrEnum."""

    @staticmethod
    def _generate_next_value_(name: str, *_: Any) -> str:
        return name

    __str__ = str.__str__


def of_mistral_common(wheel: zipfile.ZipFile) -> Templates:
    """Yields the templates that mistral-common generates for each version and kind of model."""
    chosen = {"SpecialTokens", "TokenizerVersion", "ReasoningEffort"}
    folder = "mistral_common/integrations/chat_templates"
    parts = [
        *_parse(wheel, "mistral_common/tokens/tokenizers/base.py").body,
        *_parse(wheel, "mistral_common/protocol/instruct/request.py").body,
    ]
    body: list[ast.stmt] = [
        node for node in parts if isinstance(node, ast.ClassDef) and node.name in chosen
    ]
    generator = _parse(wheel, f"{folder}/template_generator.py").body
    body += [
        node
        for node in generator
        if not (isinstance(node, ast.ImportFrom) and "mistral_common" in str(node.module))
    ]
    code = compile(ast.Module(body, []), "template_generator.py", "exec")
    module = {"__name__": "builtins", "StrEnum": _Words, "auto": enum.auto}
    exec(code, module)  # noqa: S102  # a pinned package
    yield from _generated(module)


_KINDS: tuple[dict[str, bool], ...] = (
    {},
    {"spm": True},
    {"image_support": True},
    {"audio_support": True},
    {"thinking_support": True},
    {"plain_thinking_support": True},
    {"image_support": True, "thinking_support": True},
)


def _generated(module: dict[str, Any]) -> Templates:
    config: Callable[..., Any] = module["TemplateConfig"]
    for version, kind in itertools.product(module["TokenizerVersion"], _KINDS):
        effort = {}
        if version.supports_model_settings:
            effort = {
                "reasoning_effort_values": ("none", "high"),
                "reasoning_effort_default": "none",
            }
        try:
            chosen = config(version=version, use_special_token_variables=True, **kind, **effort)
        except ValueError:  # versions do not support every kind
            continue
        name = "_".join([version, *(option.removesuffix("_support") for option in kind)])
        yield name, module["build_chat_template"](chosen)


def _files(wheel: zipfile.ZipFile, folder: str) -> Templates:
    for file in wheel.namelist():
        if file.startswith(folder) and file.endswith(".jinja"):
            yield Path(file).stem, wheel.read(file).decode("utf-8")


def _parse(wheel: zipfile.ZipFile, file: str) -> ast.Module:
    return ast.parse(wheel.read(file))
