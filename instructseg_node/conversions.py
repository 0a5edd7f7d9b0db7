"""Messages to arrays and back, as the node needs it. No rclpy and no message package: only the fields of the messages
are used. Reading is in ``instructseg.image_messages``, which bags are read with, too; here are cv_bridge and writing.
"""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np

from instructseg import image_messages
from instructseg.core import BadInput
from instructseg.image_messages import (
    ENCODINGS,
    MAX_PIXELS,
    BadImage,
    announced_size,
    compressed_to_rgb,
    stamp_ns,
)

__all__ = [
    "ENCODINGS",
    "MAX_PIXELS",
    "BadImage",
    "announced_size",
    "compressed_to_rgb",
    "fill_compressed",
    "fill_image",
    "image_to_rgb",
    "stamp_ns",
]


def image_to_rgb(message: Any) -> np.ndarray:
    """A ``sensor_msgs/Image`` as ``(H, W, 3)`` uint8 RGB: :func:`instructseg.image_messages.image_to_rgb`, and for
    encodings that it does not know cv_bridge, where a ROS installation brings it. Raises BadImage."""
    if str(message.encoding) in ENCODINGS:
        return image_messages.image_to_rgb(message)
    image_messages.check_size(int(message.width), int(message.height))
    return _through_cv_bridge(message)


def fill_image(message: Any, image: np.ndarray, encoding: str, header: Any) -> Any:
    """Write an array into a ``sensor_msgs/Image``: uint8 ``(H, W)`` / ``(H, W, C)`` or uint16 ``(H, W)``.

    The header is set as it is, the data goes in as ``array.array``: the one kind rclpy takes without checking
    every byte. Returns the message.
    """
    little = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))
    message.header = header
    message.height, message.width = int(image.shape[0]), int(image.shape[1])
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = int(little.strides[0])
    message.data = _as_array(little)
    return message


def fill_compressed(
    message: Any, image: np.ndarray, encoding: str, header: Any, *, codec: str, quality: int = 90
) -> Any:
    """Write an array into a ``sensor_msgs/CompressedImage``; codec ``png`` (lossless) or ``jpeg`` (for people only).

    image: rgb8 ``(H, W, 3)``, or mono8 / 16UC1 ``(H, W)``. Returns the message.
    """
    if codec not in ("png", "jpeg"):
        raise BadInput(f"codec is '{codec}'; allowed: png, jpeg")
    colour = image.ndim == 3
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if colour else image
    # PNG level 1: three times faster than the default and hardly larger for images of few values.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if codec == "png" else [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    done, encoded = cv2.imencode(".png" if codec == "png" else ".jpg", stored, options)
    if not done:
        raise BadInput(f"an image of {image.dtype} {image.shape} cannot be stored as {codec}")
    message.header = header
    message.format = f"{encoding}; {codec} compressed {'bgr8' if colour else encoding}"
    message.data = _as_array(encoded)
    return message


def _as_array(image: np.ndarray) -> array.array:
    data = array.array("B")
    data.frombytes(image.data.cast("B"))
    return data


def _through_cv_bridge(message: Any) -> np.ndarray:
    encoding = str(message.encoding)
    try:
        import cv_bridge
    except ImportError:
        raise BadImage(
            "image_encoding",
            f"image.encoding is {encoding[:40]!r}; allowed: {', '.join(ENCODINGS)} "
            "(others need the ROS package cv_bridge, which is not installed)",
        ) from None
    try:
        image = cv_bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as error:  # cv_bridge raises its own and OpenCV's errors, and more where its extension is missing
        refusal = f"image.encoding is {encoding[:40]!r}; cv_bridge refuses it: {error}"
        raise BadImage("image_encoding", refusal) from error
    return np.ascontiguousarray(image)
