from __future__ import annotations

import io
import json
import socket
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest

from raypipe.data.formats import images as picture_files
from raypipe.data.table import images
from raypipe.data.table.images import PixelSettings
from raypipe.errors import RequestError
from raypipe.records import Column, DatasetVersion, Reading, Signature
from raypipe.serve import pictures
from raypipe.serve.app import ModelApp
from raypipe.serve.checker import Checker
from raypipe.serve.pictures import Pictures
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import ask, model_app, model_version
from tests.unit.serve.conftest import replica_like
from tests.unit.serve.sent_files import answer_of, refusal_of, text_of

Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow: pip install 'raypipe[images]'")

RANDOM = np.random.default_rng(3)
PHOTOS = Reading(format="images", settings={"mode": "RGB", "size": [6, 5]})


def decode(data: bytes, **settings: Any) -> np.ndarray:
    """As a file of the training data is read."""
    return picture_files.decode(data, settings=PixelSettings(**settings)).values


def model_of_pictures(store: LocalFolder, shape: tuple[int, ...], reading: Reading | None = None) -> ModelApp:
    """A replica of an untrained network on pictures of a shape."""
    columns = {"image": RANDOM.integers(0, 256, (12, *shape), np.uint8)}
    dataset: DatasetVersion = tiny_dataset(store, columns, np.arange(12) % 3)
    signature = dataset.signature.model_copy(update={"reading": reading})
    version = model_version(store, dataset.model_copy(update={"signature": signature}), name="shapes")
    return model_app(store, version, ServeSpec(engine="eager"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> ModelApp:
    return model_of_pictures(LocalFolder(str(tmp_path_factory.mktemp("store"))), (8, 7))


@pytest.fixture
def app(kept: ModelApp) -> ModelApp:
    """A replica of a network on pictures of 8x7 levels of grey."""
    return replica_like(kept)


def file_of(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    held = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(held, kind)
    return held.getvalue()


def png_of_zeros(width: int, height: int) -> bytes:
    """A grey PNG of any size that few bytes are enough for."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate = zlib.compressobj(9)
    packed = b"".join(deflate.compress(bytes(1 + width)) for _ in range(height)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("path", ["/predict", "/v1/models/shapes:predict", "/invocations", "/predictions/shapes"])
def test_a_picture_gets_the_answer_of_its_numbers_to_the_bit(path: str, store: LocalFolder):
    app = model_of_pictures(store, (6, 5, 3), PHOTOS)
    pixels = RANDOM.integers(0, 256, (6, 5, 3), np.uint8)
    jpeg = file_of(pixels, "JPEG")
    for data, kind, numbers in ((file_of(pixels), "png", pixels), (jpeg, "jpeg", decode(jpeg, mode="RGB"))):
        text = text_of(data)
        expected = answer_of(app, {"instances": [{"image": numbers.tolist()}]}, path)
        lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
        for value in (text, f"data:image/{kind};base64,{text}", {"b64": text}, lines, text.rstrip("=")):
            assert answer_of(app, {"instances": [{"image": value}]}, path) == expected
        assert answer_of(app, {"instances": [text]}, path) == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize(("size", "own"), [((6, 5), (6, 5)), ((6, 5), (9, 14)), (None, (6, 5))])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_a_picture_is_read_as_the_files_of_the_training_data(
    mode: str, size: tuple[int, int] | None, own: tuple[int, int], wanted: str
):
    settings = {"mode": wanted} | ({} if size is None else {"size": list(size)})
    shape = (6, 5, 3) if wanted == "RGB" else (6, 5)
    column = Column(name="image", dtype="uint8", shape=shape)
    reading = Reading(format="images", settings=settings)
    signature = Signature(inputs=(column,), task="regression", target="y", reading=reading)
    data = file_of(RANDOM.integers(0, 256, (*own, 3), np.uint8), mode=mode)
    expected = decode(data, mode=wanted, size=size, is_resized=size is not None)
    (read,) = Pictures(signature).read(column, [text_of(data)], [0])
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("fields", [{"mode": "RGBA"}, {"mode": "L16"}, {"mode": "L", "transparency": "white"}])
def test_a_picture_is_read_as_the_files_were_in_every_mode(fields: dict[str, str], kind: str):
    settings = PixelSettings(size=(6, 5), is_resized=True, **fields)
    column = Column(name="image", dtype=settings.dtype, shape=(6, 5, *images.CHANNELS[settings.mode]))
    reading = Reading(format="images", settings={"size": [6, 5], **fields})
    signature = Signature(inputs=(column,), task="regression", target="y", reading=reading)
    data = file_of(RANDOM.integers(0, 256, (9, 7, 4), np.uint8), kind)
    (read,) = Pictures(signature).read(column, [text_of(data)], [0])
    expected = picture_files.decode(data, settings=settings).values
    assert read.dtype == expected.dtype and np.array_equal(read, expected)
    for forged in ({"mode": "RGBX"}, {"transparency": "pink"}, {"mode": "RGB"}):
        reading = Reading(format="images", settings={**reading.settings, **forged})
        assert not Pictures(signature.model_copy(update={"reading": reading})).columns


def test_a_model_of_arrays_gets_grey_or_colour_by_the_shape_of_its_column(store: LocalFolder):
    colour = RANDOM.integers(0, 256, (8, 7, 3), np.uint8)
    data = file_of(colour)
    grey = decode(data, mode="L")
    expected = {(8, 7): grey, (8, 7, 1): grey[..., None], (8, 7, 3): colour, (1, 8, 7): grey[None]}
    expected[(3, 8, 7)] = colour.transpose(2, 0, 1)
    expected[(4, 4)] = decode(data, mode="L", size=(4, 4), is_resized=True)
    for shape, numbers in expected.items():
        column = Column(name="image", dtype="uint8", shape=shape)
        signature = Signature(inputs=(column,), task="regression", target="y")
        read = Checker(signature, 9, Pictures(signature).read).rows([{"image": text_of(data)}])["image"]
        np.testing.assert_array_equal(read, numbers[None])


def test_pictures_flat_lists_and_nested_ones_may_stand_side_by_side(app: ModelApp):
    images = RANDOM.integers(0, 256, (4, 8, 7), np.uint8)
    expected = answer_of(app, {"instances": images.tolist()})
    mixed = [
        text_of(file_of(images[0])),
        images[1].tolist(),
        images[2].ravel().tolist(),
        {"b64": text_of(file_of(images[3]))},
    ]
    assert answer_of(app, {"instances": [{"image": value} for value in mixed]}) == expected
    assert answer_of(app, {"inputs": mixed}, "/invocations") == answer_of(
        app, {"instances": images.tolist()}, "/invocations"
    )
    assert answer_of(app, {"instances": images.reshape(4, -1).tolist()}) == expected


def test_bare_b64_object_is_the_only_input_as_tensorflow_serving_has_it(app: ModelApp):
    image = RANDOM.integers(0, 256, (8, 7), np.uint8)
    path = "/v1/models/shapes:predict"
    expected = answer_of(app, {"instances": [image.tolist()]}, path)
    assert answer_of(app, {"instances": [{"b64": text_of(file_of(image))}]}, path) == expected


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "application/octet-stream", None])
def test_torchserve_takes_the_file_as_the_body(kind: str, media_type: str | None, app: ModelApp):
    data = file_of(RANDOM.integers(0, 256, (8, 7), np.uint8), kind)
    numbers = decode(data, mode="L").tolist()
    expected = answer_of(app, {"instances": [numbers]}, "/predictions/shapes")
    headers = {"content-type": media_type} if media_type else {"content-type": "application/json"}
    for method in ("POST", "PUT"):
        assert bytes(ask(app, method, "/predictions/shapes", data, headers=headers).body) == expected


ADDRESSES = [
    "http://{0}/a.png",
    "HTTPS://{0}/a.png",
    "//{0}/a.png",
    "file:///etc/passwd",
    "gopher://{0}/",
    "ftp://{0}/a",
]
OTHERS = ["data:text/plain;base64,aGVsbG8=", "data:image/svg+xml;base64,PHN2Zz4=", "data:image/png,%89PNG", "data:,"]


def test_no_address_is_ever_fetched(app: ModelApp):
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.2)
        host = f"127.0.0.1:{canary.getsockname()[1]}"
        hosts = [
            host,
            f"user:secret@{host}",
            f"0x7f.1:{host[10:]}",
            f"[::ffff:127.0.0.1]:{host[10:]}",
            f"2130706433:{host[10:]}",
        ]
        for address in ADDRESSES:
            for each in hosts:
                for text in (address.format(each), "  " + address.format(each), f"url={address.format(each)}"):
                    status, message = refusal_of(app, "image", text)
                    assert status == 400 and message.startswith("row 0, field 'image'"), text
                    assert "secret" not in message
        with pytest.raises(TimeoutError):
            canary.accept()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, "found a data URL of") for text in OTHERS),
        ("http://127.0.0.1/a.png", "nothing is fetched"),
        ("not base64!", "is no picture in valid base64"),
        ("\u00e9" * 100, "is no picture in valid base64"),
        ("", "the picture is no PNG, JPEG, WebP, GIF or TIFF picture"),
        (text_of(b"BM" + bytes(100)), "the picture is no PNG, JPEG, WebP, GIF or TIFF picture"),
        (
            text_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            "the picture is no PNG, JPEG, WebP, GIF or TIFF picture",
        ),
        (text_of(file_of(RANDOM.integers(0, 256, (90, 70), np.uint8))[:3000]), "the picture is damaged"),
        (text_of(file_of(np.zeros((8, 7), np.uint16))), "the picture has 16 bits a pixel"),
    ],
)
def test_a_text_that_is_no_picture_is_refused_with_row_and_field(text: str, words: str, app: ModelApp):
    status, message = refusal_of(app, "image", text)
    assert status == 400 and words in message and message.startswith("row 0, field 'image'")


def test_the_wrong_one_of_several_pictures_is_named(app: ModelApp):
    good = text_of(file_of(np.zeros((8, 7), np.uint8)))
    response = ask(app, "POST", "/predict", json.dumps({"instances": [good] * 19 + ["bad!"] + [good]}).encode())
    assert "row 19, field 'image'" in json.loads(bytes(response.body))["error"]["message"]


def test_a_picture_of_another_size_is_refused_where_training_resized_none(store: LocalFolder):
    app = model_of_pictures(store, (6, 5, 3), Reading(format="images", settings={"mode": "RGB"}))
    status, message = refusal_of(app, "image", text_of(file_of(np.zeros((5, 6, 3), np.uint8))))
    assert status == 400 and "is 5 x 6 pixels; the model reads 6 x 5 (height x width)" in message


@pytest.mark.thorough
def test_pixels_are_counted_before_they_are_decoded(app: ModelApp, monkeypatch: pytest.MonkeyPatch):
    header = png_of_zeros(8, 7)
    huge = header[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + header[24:29]
    huge += struct.pack(">I", zlib.crc32(huge[12:29])) + header[33:]
    for data in (png_of_zeros(20_000, 4_000), huge):
        status, message = refusal_of(app, "image", text_of(data))
        assert status == 413 and "at most 33554432 together" in message
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    two = [text_of(png_of_zeros(8, 7))] * 2
    assert ask(app, "POST", "/predict", json.dumps({"instances": two[:1]}).encode()).status_code == 200
    assert ask(app, "POST", "/predict", json.dumps({"instances": two}).encode()).status_code == 413


def test_without_pillow_the_server_says_what_to_install(store: LocalFolder, monkeypatch: pytest.MonkeyPatch):
    data = file_of(np.zeros((8, 7), np.uint8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    app = model_of_pictures(store, (8, 7))
    response = ask(app, "POST", "/predict", json.dumps({"instances": [text_of(data)]}).encode())
    error = json.loads(bytes(response.body))["error"]
    assert response.status_code == 415 and "Pillow is not installed" in error["message"]
    assert "raypipe[images]" in error["hint"]
    assert ask(app, "POST", "/predictions/shapes", data, headers={"content-type": "image/png"}).status_code == 415
    assert answer_of(app, {"instances": [np.zeros((8, 7), int).tolist()]})


def test_text_in_a_field_without_pictures_is_refused_as_ever(classifier: ModelApp, regressor: ModelApp):
    signature = Signature(inputs=(Column(name="x", dtype="float32", shape=(2, 2)),), task="regression", target="y")
    assert not Pictures(signature).columns and not Pictures(regressor.signature).columns
    with pytest.raises(RequestError, match="row 0, field 'x': found 'text' \\(string\\); expected <float32 list"):
        Checker(signature, 9, Pictures(signature).read).rows([{"x": "text"}])
    assert Pictures(classifier.signature).columns == {"image"}


@pytest.mark.thorough
@pytest.mark.parametrize(("size", "is_inline"), [((300, 400), True), ((400, 400), False)])
def test_many_pixels_are_decoded_in_another_process(
    size: tuple[int, int], is_inline: bool, app: ModelApp, monkeypatch: pytest.MonkeyPatch
):
    num_decoded_here = 0
    pixels = images.pixels

    def noting(*args: Any, **settings: Any) -> np.ndarray:
        nonlocal num_decoded_here
        num_decoded_here += 1
        return pixels(*args, **settings)

    monkeypatch.setattr(images, "pixels", noting)
    assert answer_of(app, {"instances": [text_of(png_of_zeros(*size))]})
    assert num_decoded_here == int(is_inline)


def test_the_v2_protocol_takes_pictures_as_texts(app: ModelApp):
    pictures = RANDOM.integers(0, 256, (2, 8, 7), np.uint8)
    path = "/v2/models/shapes/infer"
    numbers = {"name": "image", "datatype": "UINT8", "shape": [2, 8, 7], "data": pictures.ravel().tolist()}
    texts = {"name": "image", "datatype": "BYTES", "data": [text_of(file_of(each)) for each in pictures]}
    expected = answer_of(app, {"inputs": [numbers]}, path)
    for shape in ([2], [2, 1]):
        assert answer_of(app, {"inputs": [{**texts, "shape": shape}]}, path) == expected
