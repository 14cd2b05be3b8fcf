"""Kalman filters of constant velocity for many boxes at once."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Kalman"]

Array = np.ndarray[Any, Any]


class Kalman:
    """Positions and velocities of T boxes in four coordinates, each filtered on its own.

    Where noise, start and measurement do not mix the coordinates, as in SORT's and ByteTrack's models, the filter of
    all eight numbers falls into four of a position and a velocity, whose gains are quotients and not matrices.
    """

    def __init__(self) -> None:
        self.position, self.velocity = np.empty((0, 4)), np.empty((0, 4))
        self.variance = np.empty((3, 0, 4))  # of the position, of both, of the velocity

    def begin(self, measured: Array, variance: Any, velocity_variance: Any) -> None:
        """Adds boxes, at rest."""
        self.position = np.concatenate([self.position, measured])
        self.velocity = np.concatenate([self.velocity, np.zeros_like(measured)])
        new = np.zeros((3, *measured.shape))
        new[0], new[2] = variance, velocity_variance
        self.variance = np.concatenate([self.variance, new], 1)

    def keep(self, rows: Array) -> None:
        """Keeps some boxes, by a mask or in an order."""
        self.position, self.velocity, self.variance = self.position[rows], self.velocity[rows], self.variance[:, rows]

    def predict(self, rows: Array, noise: Any, velocity_noise: Any) -> None:
        """A frame passes for some boxes, given by a mask."""
        self.position[rows] += self.velocity[rows]
        own, both, speed = self.variance[:, rows]
        self.variance[:, rows] = own + 2 * both + speed + noise, both + speed, speed + velocity_noise

    def update(self, rows: Array, measured: Array, noise: Any) -> None:
        """Some boxes, given by their numbers, have been measured."""
        own, both, speed = self.variance[:, rows]
        gain, speed_gain = own / (own + noise), both / (own + noise)
        off = measured - self.position[rows]
        self.position[rows] += gain * off
        self.velocity[rows] += speed_gain * off
        self.variance[:, rows] = (1 - gain) * own, (1 - gain) * both, speed - speed_gain * both
