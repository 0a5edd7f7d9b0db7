"""Label images in messages: ids come through exactly, and what would change them is refused."""

from __future__ import annotations

import types

import cv2
import numpy as np
import pytest

from instructseg.image_messages import LABEL_ENCODINGS, BadImage, compressed_to_labels, image_to_labels

H, W = 18, 24


def ids(kind: type) -> np.ndarray:
    return (np.arange(H * W).reshape(H, W) * 7 % 251).astype(kind) * (200 if kind is not np.uint8 else 1)


def message(labels: np.ndarray, encoding: str, pad: int = 0, big: bool = False) -> types.SimpleNamespace:
    sent = labels.astype(labels.dtype.newbyteorder(">" if big else "<"))
    rows = np.ascontiguousarray(sent).view(np.uint8).reshape(H, -1)
    rows = np.concatenate([rows, np.full((H, pad), 0xAB, np.uint8)], axis=1)
    return types.SimpleNamespace(
        height=H, width=W, encoding=encoding, is_bigendian=int(big), step=rows.shape[1], data=rows.tobytes()
    )


def compressed(data: bytes) -> types.SimpleNamespace:
    return types.SimpleNamespace(format="16UC1; png compressed 16UC1", data=data)


@pytest.mark.parametrize("encoding", LABEL_ENCODINGS)
@pytest.mark.parametrize(("pad", "big"), [(0, False), (5, True)])
def test_raw_labels_are_exact(encoding: str, pad: int, big: bool) -> None:
    labels = ids(LABEL_ENCODINGS[encoding])
    found = image_to_labels(message(labels, encoding, pad, big))
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_png_labels_are_exact(kind: type) -> None:
    labels = ids(kind)
    np.testing.assert_array_equal(compressed_to_labels(compressed(cv2.imencode(".png", labels)[1].tobytes())), labels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "rgb8"}, "'rgb8'; allowed: mono8"),
        ({"encoding": "32FC1"}, "'32FC1'; allowed"),
        ({"step": 3}, "image.step is 3"),
        ({"data": b"12"}, "image.data has 2 bytes"),
        ({"width": 0}, "0 x 18"),
    ],
)
def test_raw_labels_that_cannot_be_right(changes: dict, words: str) -> None:
    sent = message(ids(np.uint16), "16UC1")
    sent.__dict__.update(changes)
    with pytest.raises(BadImage, match=words):
        image_to_labels(sent)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (cv2.imencode(".jpg", ids(np.uint8))[1].tobytes(), "JPEG, which changes ids"),
        (cv2.imencode(".png", np.zeros((H, W, 3), np.uint8))[1].tobytes(), r"shape \(18, 24, 3\)"),
        (cv2.imencode(".png", ids(np.uint8))[1].tobytes()[:-40], "cut off"),
        (b"", "is empty"),
        (b"no picture", "cannot be decoded"),
    ],
)
def test_compressed_labels_that_cannot_be_right(data: bytes, words: str) -> None:
    with pytest.raises(BadImage, match=words):
        compressed_to_labels(compressed(data))
