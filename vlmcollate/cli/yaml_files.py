"""Files of YAML or JSON with named values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmcollate.errors import ConfigError


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """Reads a file of named values.

    Args:
        path: The file.
        name: Its name in errors.

    Raises:
        ConfigError: The file cannot be read, is no YAML, or holds something else.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        found = _strict_loader()(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{name} is no YAML{_place_of(error)}; correct the file") from error
    if found is None:
        return {}  # an empty file, or one of comments
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(
            f"{name} is wrong: found {type(found).__name__}, expected options by name"
        )
    return found


def _strict_loader() -> Any:
    """Returns a safe loader that refuses a name that stands twice in one mapping."""
    import yaml

    class StrictLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        def construct_mapping(self, node: Any, **options: Any) -> Any:
            seen = set()
            for key in (key for key, _ in node.value if key.id == "scalar"):
                if key.value in seen:
                    problem = f"the name {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, **options)

    return StrictLoader


def _place_of(error: Any) -> str:
    """The line and the problem of an error of YAML, without the lines that it quotes."""
    mark = getattr(error, "problem_mark", None)
    place = "" if mark is None else f" at line {mark.line + 1}, character {mark.column + 1}"
    return f"{place}: {getattr(error, 'problem', None) or getattr(error, 'reason', '')}"
