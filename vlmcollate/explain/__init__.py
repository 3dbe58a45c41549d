"""Explanations of encoded examples: their tokens, the origin of each, and which train."""

from vlmcollate.explain.explanation import Explanation
from vlmcollate.explain.media_items import MediaItem
from vlmcollate.explain.tokens import Block, Run, Token

__all__ = ["Block", "Explanation", "MediaItem", "Run", "Token"]
