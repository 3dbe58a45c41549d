"""What happened to one example: its tokens, where each came from, and which train."""

from vlmcollate.seeing.explanation import Explanation
from vlmcollate.seeing.media_items import MediaItem
from vlmcollate.seeing.parts import Block, Run, Token

__all__ = ["Block", "Explanation", "MediaItem", "Run", "Token"]
