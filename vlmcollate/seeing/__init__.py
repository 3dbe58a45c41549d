"""What happened to one example: its tokens, where each came from, and which train."""

from vlmcollate.seeing.explanation import Block, Explanation, Run, Token
from vlmcollate.seeing.media_items import MediaItem

__all__ = ["Block", "Explanation", "MediaItem", "Run", "Token"]
