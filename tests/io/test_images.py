"""Pictures are read upright and whole, or refused by name."""

import os
import zlib

import numpy as np
import pytest
from PIL import Image

from lorascope.errors import BadInputError, MissingInputError, ShapeError
from lorascope.io.images import find_images, read_image, resize_crop, write_png

as_root = hasattr(os, "geteuid") and os.geteuid() == 0


def picture(seed: int = 0, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_written_picture_reads_back_bit_for_bit_with_its_text(tmp_path):
    write_png(tmp_path / "a.png", picture(), text={"prompt": "fern, grün", "seed": "7"})
    read = read_image(tmp_path / "a.png")
    assert np.array_equal(read, picture())
    assert read.flags.writeable  # torch warns about arrays that are not
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.text == {"prompt": "fern, grün", "seed": "7"}


def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path):
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, picture(), text={"seed": "1"})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_an_array_that_is_no_picture_is_not_written(tmp_path, wrong):
    with pytest.raises(ShapeError):
        write_png(tmp_path / "a.png", wrong)
    assert not (tmp_path / "a.png").exists()


def test_exif_rotation_is_undone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(picture(), -1))


def test_transparent_parts_are_white(tmp_path):
    layer = np.dstack([picture(), np.zeros((20, 30), np.uint8)])
    layer[:10, :, 3] = 255
    Image.fromarray(layer).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert np.array_equal(read[:10], picture()[:10])
    assert (read[10:] == 255).all()


def test_a_transparent_palette_colour_is_white(tmp_path):
    indexed = Image.new("P", (4, 4), 0)
    indexed.putpalette([200, 0, 0, 0, 200, 0])
    indexed.putpixel((0, 0), 1)
    indexed.save(tmp_path / "a.png", transparency=0)
    read = read_image(tmp_path / "a.png")
    assert read[0, 0].tolist() == [0, 200, 0]
    assert (read[1:] == 255).all()


def test_sixteen_bit_greys_keep_their_brightness(tmp_path):
    Image.fromarray(np.full((3, 3), 257 * 128, np.uint16)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 128).all()


@pytest.mark.parametrize("mode", ["L", "1", "LA", "CMYK", "YCbCr"])
def test_every_mode_becomes_three_colours(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new(mode, (5, 4), 0).save(path)
    assert read_image(path).shape == (4, 5, 3)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_a_truncated_picture_is_refused_by_name(tmp_path, ending, share):
    path = tmp_path / f"torn.{ending}"
    Image.fromarray(picture(0, 64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadInputError, match=r"torn.*(damaged|not a picture)"):
        read_image(path)


def test_a_flipped_byte_in_the_pixels_is_refused(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, picture(0, 64, 64))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"a\.png"):
        read_image(path)


def test_empty_strange_and_missing_files_are_told_apart(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    for name, why in (("empty", "0 bytes"), ("text", "not a picture"), ("folder", "cannot be")):
        with pytest.raises(BadInputError, match=why):
            read_image(tmp_path / f"{name}.png")
    with pytest.raises(MissingInputError, match="does not exist"):
        read_image(tmp_path / "nowhere.png")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    with pytest.raises(BadInputError, match="too large"):
        write_png(tmp_path / "a.png", picture())
        read_image(tmp_path / "a.png", max_pixels=599)
    assert read_image(tmp_path / "a.png", max_pixels=600).shape == (20, 30, 3)
    (tmp_path / "bomb.png").write_bytes(bomb(60_000, 60_000))
    with pytest.raises(BadInputError, match="too large"):
        read_image(tmp_path / "bomb.png")


def bomb(width: int, height: int) -> bytes:
    """A PNG that promises many pixels."""
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    parts = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")):
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        parts += len(data).to_bytes(4, "big") + kind + data + check
    return parts


def test_pictures_are_found_by_ending_in_order_without_hidden_ones(tmp_path):
    for name in ("b.JPG", "a.png", ".c.png", "d.txt", "e.webp", "f.bmp", "g.jpeg"):
        (tmp_path / name).touch()
    (tmp_path / "h.png").mkdir()
    names = [p.name for p in find_images(tmp_path)]
    assert names == ["a.png", "b.JPG", "e.webp", "f.bmp", "g.jpeg"]


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="is a file"):
        find_images(tmp_path / "file")
    with pytest.raises(MissingInputError):
        find_images(tmp_path / "nowhere")


@pytest.mark.skipif(as_root, reason="the superuser may read everything")
def test_a_folder_without_rights_is_refused(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    with pytest.raises(BadInputError, match="cannot be read"):
        find_images(locked)


def test_resizing_covers_the_size_and_cuts_both_sides_alike():
    striped = np.zeros((10, 30, 3), np.uint8)
    striped[:, 10:20] = 200
    assert (resize_crop(striped, 10, 10) == 200).all()
    assert resize_crop(picture(), 7, 9).shape == (9, 7, 3)
    assert resize_crop(picture(), 60, 90).shape == (90, 60, 3)


def test_a_picture_of_the_right_size_is_not_touched():
    assert np.array_equal(resize_crop(picture(), 30, 20), picture())


def test_resizing_does_not_stretch_a_circle(tmp_path):
    rows, columns = np.mgrid[:80, :160]
    disc = (np.hypot(rows - 40, columns - 80) < 30)[..., None] * np.full(3, 255, np.uint8)
    inside = resize_crop(disc.astype(np.uint8), 40, 40)[..., 0] > 127
    assert abs(int(inside.any(0).sum()) - int(inside.any(1).sum())) <= 1
