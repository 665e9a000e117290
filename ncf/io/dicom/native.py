"""Pixels that lie in a file as plain numbers, found while its header is read, so that no file is parsed twice.

Whatever is compressed, big endian or otherwise unusual is left to pydicom (`ncf.io.dicom.pixels`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

PLAIN = {"1.2.840.10008.1.2": 8, "1.2.840.10008.1.2.1": 12}  # implicit and explicit little endian: bytes before values
PIXEL_DATA = b"\xe0\x7f\x10\x00"
WORDS = (b"OW\0\0", b"OB\0\0")


class Native(NamedTuple):
    """Where the plain numbers of a file lie.

    Attributes:
        offset: of the first one in the file, in bytes.
        dtype: of each, such as "<i2".
    """

    offset: int
    dtype: str

    def frame(self, file: Path, number: int, shape: tuple[int, int]) -> np.ndarray:
        """Read one frame.

        Args:
            file: its path.
            number: of the frame, from 0.
            shape: rows, columns.

        Raises:
            OSError: the file cannot be read.
            ValueError: it ends too early.
        """
        size = shape[0] * shape[1]
        start = self.offset + number * size * np.dtype(self.dtype).itemsize
        found = np.fromfile(file, self.dtype, count=size, offset=start)
        if found.size < size:
            raise ValueError(f"the file ends after {found.size} of {size} values")
        return found.reshape(shape)


def native_of(header: Any, file: BinaryIO) -> Native | None:
    """Return where the pixels of a file lie, None where it takes a decoder to read them.

    Args:
        header: the data set before its pixels.
        file: open, right behind what was read.
    """
    length = PLAIN.get(str(getattr(header.file_meta, "TransferSyntaxUID", "")))
    if length is None or header.get("ModalityLUTSequence") or int(header.get("SamplesPerPixel", 1) or 1) != 1:
        return None
    first = file.read(length)
    explicit = length > len(PIXEL_DATA) * 2
    if not first.startswith(PIXEL_DATA) or (explicit and first[4:8] not in WORDS):
        return None
    bits, stored = int(header.get("BitsAllocated", 0)), int(header.get("BitsStored", 0))
    if bits not in (8, 16, 32) or not 0 < stored <= bits or int(header.get("HighBit", -1)) != stored - 1:
        return None
    frames = int(header.get("NumberOfFrames", 1) or 1)
    bytes_of_all = int(header.Rows) * int(header.Columns) * frames * bits // 8
    if int.from_bytes(first[-4:], "little") not in (bytes_of_all, bytes_of_all + 1):
        return None
    return Native(file.tell(), f"<{'iu'[header.get('PixelRepresentation', 0) == 0]}{bits // 8}")
