"""The options of the collator on the command line, which every command has."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from vlmcollate.cli.flags import naming_flags
from vlmcollate.cli.option_values import value_of
from vlmcollate.cli.yaml_files import read_yaml
from vlmcollate.errors import CollateError, ConfigError

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator


_LOADED = {
    "processor": "the processor is an argument; remove the option",
    "model_config": "it is read from the folder of the processor; put config.json there",
}


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
        train_on: What trains, such as `last_turn` or `Reasoning(train=False)`.
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
            if name in _LOADED:
                raise ConfigError(f"--option {name} is wrong: {_LOADED[name]}")
            found[name] = _value(f"--option {name}", value)
        if self.template_kwargs is not None:
            found["template_kwargs"] = _json_object(self.template_kwargs, "--template-kwargs")
        if self.train_on is not None:
            found["train_on"] = _value("--train-on", self.train_on)
        return found if self.format is None else {**found, "format": self.format}

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
        with _errors_of(self.collator):
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
    "train_on": Annotated[str | None, typer.Option(help="What trains, such as last_turn.")],
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
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(name, kind, default=None, annotation=annotation)
        for name, annotation in _FIELDS.items()
    ]

    @functools.wraps(command)
    def wrapped(context: typer.Context, **given: Any) -> None:
        settings = CollatorSettings(**{name: given.pop(name) for name in _FIELDS})
        with naming_flags(context):
            command(**given, settings=settings)

    context = inspect.Parameter("context", kind, annotation=typer.Context)
    parameters = [
        context,
        *(p.replace(annotation=hints[p.name], kind=kind) for p in own),
        *shared,
    ]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def _read_config(path: Path) -> dict[str, Any]:
    found = read_yaml(path, f"--config {path}")
    return {
        k: _value(f"--config {path}, {k}", v) if isinstance(v, str) else v for k, v in found.items()
    }


def _value(place: str, text: str) -> Any:
    try:
        return value_of(text)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


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
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"{problem}; {error}") from error
    if not callable(found):
        raise ConfigError(f"{problem}; found {type(found).__name__}")
    return found  # type: ignore[no-any-return]


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Turns an exception in the code of a user into one line that names its place."""
    try:
        yield
    except CollateError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"--collator {name} failed: {type(error).__name__}: {error}, in {last.filename}, line "
            f"{last.lineno}; name a function that takes a processor and options, and returns a "
            "collator"
        ) from error
