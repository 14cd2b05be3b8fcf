"""Pictures in files, decoded by Pillow within limits on their kind and size."""

from __future__ import annotations

from typing import Any, BinaryIO

from .errors import DataFormatError

__all__ = ["FORMATS", "MOST_PIXELS", "begun", "converted", "decoded"]

# Formats that Pillow decodes itself: for some of the others it starts another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 1 << 26  # of one picture


def begun(module: Any, file: BinaryIO, where: str, most_pixels: int = MOST_PIXELS) -> Any:
    """A picture by Pillow, of which the size and the kind are known and nothing is decoded yet.

    Parameters
    ----------
    module : PIL.Image
    file : what holds the picture
    where : the file's name in an error
    most_pixels : more are refused
    """
    try:
        picture = module.open(file, formats=FORMATS)
    except module.UnidentifiedImageError:
        raise DataFormatError(f"{where}: must be an image, got none of {', '.join(FORMATS)}") from None
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # a damaged file raises whatever its damage leads to
        raise DataFormatError(f"{where}: must be an image, got {error}") from error
    width, height = picture.size
    if width * height > most_pixels:
        raise DataFormatError(f"{where}: must have at most {most_pixels} pixels, got {width} x {height}")
    return picture


def decoded(picture: Any, where: str) -> Any:
    """The picture, all of it in memory."""
    try:
        picture.load()
    except Exception as error:  # as above
        raise DataFormatError(f"{where}: must be a whole image, got {error}") from error
    return picture


def converted(picture: Any, mode: str, where: str) -> Any:
    """The decoded picture in one of Pillow's modes."""
    try:
        return picture.convert(mode)
    except Exception as error:  # as above: its transparency is looked at only now
        raise DataFormatError(f"{where}: must be an image that has {mode} values, got {error}") from error
