"""The options of the collator on the command line, which every command has."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from vlmcollate.errors import ConfigError

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator


def _as_list(given: list[str] | None) -> list[str]:
    return list(given or ())


@attrs.frozen(kw_only=True)
class CollatorSettings:
    """The options of a command that make its collator.

    Attributes:
        collator: `module:factory`, which returns the collator of a processor.
        config: A YAML or JSON file with options.
        option: Further options, each `name=value`.
        format: The name of the dataset format.
        train_on: The assistant turns that train.
        template_kwargs: JSON of the chat template's variables.
        max_pixels: The maximum pixels of an image, an option of the processor.
        fps: The frames per second that are taken of a video.
    """

    collator: str | None = None
    config: Path | None = None
    option: list[str] = attrs.field(factory=list, converter=_as_list)
    format: str | None = None
    train_on: str | None = None
    template_kwargs: str | None = None
    max_pixels: int | None = None
    fps: float | None = None

    def options(self) -> dict[str, Any]:
        """Returns the options of the collator, of which those of the command line come last.

        Raises:
            ConfigError: An option cannot be read.
        """
        found = _read_config(self.config) if self.config else {}
        for text in self.option:
            name, separator, value = text.partition("=")
            if not separator or not name.isidentifier():
                raise ConfigError(
                    f"--option is wrong: found {text!r}, expected name=value, such as "
                    "--option dummy_media=batch"
                )
            if name == "processor":
                raise ConfigError("--option processor is wrong: the processor is an argument")
            found[name] = value_of(value)
        if self.template_kwargs is not None:
            found["template_kwargs"] = _json_object(self.template_kwargs, "--template-kwargs")
        named = {"format": self.format, "train_on": self.train_on}
        return found | {name: value for name, value in named.items() if value is not None}

    def make(self, processor: Any, options: Mapping[str, Any]) -> BaseCollator:
        """Returns the collator of a processor, by the factory if there is one.

        Args:
            processor: The processor.
            options: Its options.

        Raises:
            ConfigError: The factory is missing, or returns something else.
        """
        from vlmcollate.collator import BaseCollator
        from vlmcollate.models import collator_for

        if self.collator is None:
            return collator_for(processor, **options)
        made = _imported(self.collator)(processor, **options)
        if not isinstance(made, BaseCollator):
            raise ConfigError(
                f"--collator {self.collator} is wrong: it returned {type(made).__name__}, expected "
                "a collator"
            )
        return made


_FIELDS: dict[str, Any] = {
    "collator": Annotated[
        str | None, typer.Option(help="MODULE:FACTORY that returns the collator of a processor.")
    ],
    "config": Annotated[
        Path | None, typer.Option(help="YAML or JSON file with options of the collator.")
    ],
    "option": Annotated[
        list[str] | None,
        typer.Option("--option", "-O", help="Option of the collator as name=value; repeatable."),
    ],
    "format": Annotated[str | None, typer.Option(help="Dataset format, such as llava.")],
    "train_on": Annotated[str | None, typer.Option(help="Turns that train: last_turn.")],
    "template_kwargs": Annotated[
        str | None, typer.Option(help="JSON of variables of the chat template.")
    ],
    "max_pixels": Annotated[int | None, typer.Option(min=1, help="Maximum pixels of an image.")],
    "fps": Annotated[float | None, typer.Option(min=0, help="Frames per second of a video.")],
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of the collator, as its argument `settings`."""
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "settings"]
    hints = inspect.get_annotations(command, eval_str=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _FIELDS.items()
    ]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        settings = CollatorSettings(**{name: given.pop(name) for name in _FIELDS})
        command(**given, settings=settings)

    parameters = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own] + shared
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def value_of(text: str) -> Any:
    """Returns the value of an option: JSON, a literal or a call of Python, or the text itself.

    Args:
        text: Such as `512`, `true`, `["<a>"]`, `batch` or `LocalMedia(max_bytes=1000)`.

    Raises:
        ConfigError: It calls something that is no public class of the library.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    return (
        text if isinstance(node, ast.Name | ast.BinOp | ast.Attribute) else _evaluated(node, text)
    )


def _evaluated(node: ast.expr, text: str) -> Any:
    """The value of a literal, or of a call of a public class with literals."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        import vlmcollate
        from vlmcollate import formats

        kind = getattr(vlmcollate, node.func.id, None) or getattr(formats, node.func.id, None)
        if not inspect.isclass(kind) or any(k.arg is None for k in node.keywords):
            raise ConfigError(
                f"{node.func.id!r} in {text!r} is unknown: expected a public class of vlmcollate"
            )
        given = [_evaluated(value, text) for value in node.args]
        named = {str(k.arg): _evaluated(k.value, text) for k in node.keywords}
        try:
            return kind(*given, **named)
        except TypeError as error:
            raise ConfigError(f"{text!r} is wrong: {error}") from error
    if isinstance(node, ast.List):
        return [_evaluated(item, text) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{text!r} is wrong: expected JSON, a literal of Python, or a call of a public class"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(
            f"--config {path} is wrong: found {type(found).__name__}, expected options by name"
        )
    return {k: value_of(v) if isinstance(v, str) else v for k, v in found.items()}


def _json_object(text: str, option: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{option} is no valid JSON: {error}; quote it for the shell") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{option} is wrong: found {text!r}, expected a JSON object")
    return found


def _imported(name: str) -> Callable[..., Any]:
    """The factory `module:factory`; the working directory counts as a place of modules."""
    module, separator, attribute = name.partition(":")
    problem = f"--collator {name} is wrong: expected MODULE:FACTORY, such as my_code:make_collator"
    if not separator or not module or not attribute:
        raise ConfigError(problem)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{problem}; {error}") from error
    if not callable(found):
        raise ConfigError(f"{problem}; found {type(found).__name__}")
    return found  # type: ignore[no-any-return]
