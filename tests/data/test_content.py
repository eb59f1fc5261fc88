"""What is said of files that no image can be read from."""

import gzip
import io

import numpy as np
import pytest
from PIL import Image

from hard_ray.data.views import UnreadableImageError, decode
from tests.data.encoded import GREY, encoded, tiff


def numpy_file() -> bytes:
    stream = io.BytesIO()
    np.save(stream, GREY)
    return stream.getvalue()


TWO = np.stack([GREY, GREY], axis=2).astype("<u2")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty; copy it again"),
        (bytes(100), "nothing but zeros; copy it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
            "pointer of Git LFS; .* `git lfs pull`",
        ),
        (b"\n<!DOCTYPE html><html>not found</html>", "an HTML page, .*; download it again"),
        (b'{"error": "not found"}', "JSON text, .*; download it again"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="x"/>', "an SVG drawing; convert it"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image; convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a film"),
        (b"\xff\x0a" + bytes(20), "a JPEG XL image; convert it"),
        (b"8BPS\0\1" + bytes(20), "a Photoshop file; convert it"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript program, which is not run"),
        (b"%PDF-1.7\n", "a PDF document"),
        (gzip.compress(b"x", mtime=0), "a compressed archive; unpack it"),
        (numpy_file(), "an array of NumPy; encode it as PNG"),
        (bytes(127) + b"\1DICM" + bytes(20), "a DICOM image"),
        (
            tiff(TWO.tobytes(), [16, 16], extra=2),
            "a TIFF file of 2 channels of 16 bits that is not read; save it with 8",
        ),
        (tiff(GREY.astype("<f8").tobytes(), [64], sample_format=3), "a TIFF file of 1 channels of 64 bits"),
        (b"II*\0\xff\xff\xff\xff", "a TIFF file that is not read"),
        (encoded(Image.fromarray(GREY), "JPEG")[:20], "a JPEG file that is damaged"),
        (b"no image at all", "want JPEG, PNG, .*; replace the file"),
    ],
)
def test_what_is_no_image_is_named_with_the_remedy(content: bytes, words: str):
    with pytest.raises(UnreadableImageError, match=f"^no image can be read from it: .*{words}"):
        decode(content, in_chans=3)


def test_no_address_in_memory_is_part_of_a_reason():
    for content in (
        b"no image",
        encoded(Image.fromarray(GREY), "JPEG")[:-300],
        encoded(Image.fromarray(GREY), "PNG")[:99],
    ):
        with pytest.raises(UnreadableImageError) as caught:
            decode(content, in_chans=1)
        assert "0x" not in str(caught.value)
