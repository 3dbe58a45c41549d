"""The numbers of a survey as plain values, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlmcollate.cli.source_surveys import SourceSurvey, shares
from vlmcollate.cli.survey import BATCH_SIZES, Survey
from vlmcollate.tokens.vocabulary import Ints


def survey_document(survey: Survey) -> dict[str, Any]:
    """Returns the numbers of a survey for `json.dumps`."""
    return {
        "rows": len(survey.lengths),
        "media_items": survey.items,
        "tokens": _spread(survey.lengths),
        "trained_tokens": _spread(survey.trained),
        "media_tokens": _spread(survey.media),
        "trained_share": float(survey.trained.sum() / survey.lengths.sum()),
        "padding": [
            {
                "rows_per_batch": size,
                "share": survey.padding_waste(size),
                "share_grouped_by_length": survey.padding_waste(size, grouped=True),
            }
            for size in BATCH_SIZES
        ],
        "packing": [_packing(survey, length) for length in survey.pack_lengths],
        "shortened": {
            "rows": survey.shortened.rows,
            "tokens": survey.shortened.tokens,
            "trained_tokens": survey.shortened.trained,
        },
        "dropped": [
            {"error": name, "rows": count, "first": first}
            for name, (count, first) in survey.failures.items()
        ],
    }


def surveys_document(surveys: Sequence[SourceSurvey]) -> dict[str, Any]:
    """Returns the numbers of a dataset, or of each source of a mixture by name."""
    if not surveys[0].source:
        return survey_document(surveys[0].survey)
    return {
        "sources": {
            found.source: {
                "share": {"rows": rows, "tokens": tokens, "trained_tokens": trained},
                **survey_document(found.survey),
            }
            for found, (rows, tokens, trained) in zip(surveys, shares(surveys), strict=True)
        }
    }


def _spread(values: Ints) -> dict[str, float]:
    return {
        "minimum": int(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "percentile_95": float(np.percentile(values, 95)),
        "maximum": int(values.max()),
        "all": int(values.sum()),
    }


def _packing(survey: Survey, length: int) -> dict[str, Any]:
    fill, packs, overlong = survey.packing_fill(length)
    share = float(fill) if packs else None
    return {"length": length, "packs": packs, "fill": share, "rows_too_long": overlong}
