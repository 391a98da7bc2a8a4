"""Pixels of one PNG or JPEG, with bounds on what it may unpack to."""

from __future__ import annotations

import io
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError

Channels = Literal[1, 3]

_FORMATS = ("PNG", "JPEG")
# Eight bits per channel; Pillow would cut deeper ones off without a word.
_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"})
_MOST_PIXELS = 2**24


def decode(
    data: bytes, where: str, *, channels: Channels, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return the levels of an image, (channel, height, width); transparency is dropped.

    Parameters
    ----------
    channels : 3 for red, green and blue, 1 for luma (ITU-R BT.601).
    size : (height, width) to scale to, bilinear; None leaves it.

    Raises InputError for what is no PNG or JPEG of eight bits, is damaged, or has more
    than 2**24 pixels.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Size is checked below; what else Pillow notes does not concern the pixels.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise InputError(
                        f"has {image.width}×{image.height} pixels, more than {_MOST_PIXELS}",
                        where=where,
                    )
                if image.mode not in _MODES:
                    raise InputError(
                        f"has pixels of type {image.mode!r}",
                        where=where,
                        remedy="save it with eight bits per channel",
                    )
                plain = image.convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is no PNG or JPEG that can be read: {error}", where=where) from error
    if size is not None and plain.size != (size[1], size[0]):
        plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(plain, dtype=np.uint8)
    return array[np.newaxis] if channels == 1 else np.moveaxis(array, -1, 0)
