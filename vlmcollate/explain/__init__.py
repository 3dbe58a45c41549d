"""What happened to one example: its tokens, where each came from, and which train."""

from vlmcollate.explain.explanation import Explanation
from vlmcollate.explain.media_items import MediaItem
from vlmcollate.explain.tokens import Block, Run, Token

__all__ = ["Block", "Explanation", "MediaItem", "Run", "Token"]
