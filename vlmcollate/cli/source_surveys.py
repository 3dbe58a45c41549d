"""The numbers of each source of a mixture."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from vlmcollate.cli.survey import Survey


@attrs.frozen(kw_only=True, eq=False)
class SourceSurvey:
    """The numbers of one source of a mixture, or of a dataset.

    Attributes:
        source: The name of the source, or "".
        weight: Its weight.
        survey: Its numbers.
    """

    source: str = ""
    weight: float = 1.0
    survey: Survey


def shares(surveys: Sequence[SourceSurvey]) -> list[tuple[float, float, float]]:
    """Computes each source's share of the rows, the tokens and the trained tokens of a mixture.

    A row that fails is drawn, too, and has no tokens; a row may have several samples.
    """
    weights = np.array([found.weight for found in surveys])
    lengths = weights * [found.survey.lengths.sum() / found.survey.drawn for found in surveys]
    trained = weights * [found.survey.trained.sum() / found.survey.drawn for found in surveys]
    parts = [values / (values.sum() or 1) for values in (weights, lengths, trained)]
    return list(zip(*(part.tolist() for part in parts), strict=True))
