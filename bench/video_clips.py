"""Drawn 480p videos with masks, the same every time: what metrics and readers of video are measured on."""

from __future__ import annotations

import cv2
import numpy as np

HEIGHT, WIDTH = 480, 854  # of DAVIS at 480p
AREAS = 3  # things that move on their own


def truth_masks(frames: int, thing: int) -> np.ndarray:
    """``(T, 480, 854)`` bool of one thing, 5 to 10 % of the frame: an ellipse with a handle, turning as it moves."""
    masks = np.zeros((frames, HEIGHT, WIDTH), np.uint8)
    for t, mask in enumerate(masks):
        x, y = (150, 430, 650)[thing] + 3 * t, (200, 300, 160)[thing] + t
        cv2.ellipse(mask, (x, y), (90 + 20 * thing, 60 + 15 * thing), 20 * thing + t, 0, 360, 1, -1)
        cv2.circle(mask, (x + 70, y - 40), 35, 1, -1)
    return masks.astype(bool)


def wobbled(masks: np.ndarray, rng: np.random.Generator, pixels: float = 12.0) -> np.ndarray:
    """The masks as a model would predict them: outlines that wander by some pixels, and a hole now and then."""
    predicted = np.empty_like(masks)
    for t, mask in enumerate(masks.astype(np.uint8)):
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
        waves = cv2.GaussianBlur(rng.normal(0, 1, mask.shape).astype(np.float32), (0, 0), 8)
        predicted[t] = depth + waves / waves.std() * pixels > 0
    return predicted


def pictures(masks: np.ndarray) -> np.ndarray:
    """``(T, 480, 854, 3)`` uint8 RGB with the texture of a camera's picture. masks: ``(things, T, 480, 854)``."""
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8), (0, 0), 2)
    images = np.repeat(ground[None], masks.shape[1], axis=0)
    for thing, track in enumerate(masks):
        images[track] = (images[track] // 2) + np.array([(90, 10, 10), (10, 90, 20), (20, 20, 90)][thing], np.uint8)
    return images
