"""What a media strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from PIL import Image


class MediaStrategy(ABC):
    """How one sample's media is loaded, and which dtype its tensors get.

    A strategy is a value: frozen and picklable, so that DataLoader workers can share it. It never
    edits what it is given.
    """

    @abstractmethod
    def load_image(self, source: object, *, where: str) -> Image.Image:
        """Loads one image as plain upright RGB.

        Args:
            source: The image as the user gave it.
            where: The path inside the sample, such as `messages[0].content[1]`, for errors.

        Returns:
            A decoded image of mode RGB, without transparency or pending EXIF orientation. It may
            be the object that was passed, so it is only to be read.

        Raises:
            MediaError: If the image is missing, broken, refused or too large.
        """

    @abstractmethod
    def cast(self, key: str, value: torch.Tensor) -> torch.Tensor:
        """Brings one media tensor to the dtype that the model wants.

        Args:
            key: The tensor's name in the batch, such as `pixel_values`.
            value: The tensor, of any shape.

        Returns:
            The tensor of the same shape; integer and bool tensors come back as they are.
        """
