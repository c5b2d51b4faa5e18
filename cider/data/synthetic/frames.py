"""Audio or vision frames given the label: patterns in disjoint features, plus AR(1) noise.

Legend: N utterances, S frames of one utterance, R frames of all, F features, C channels, G label
grid. Given its length, all that an utterance's frames tell about the label is the best linear
estimate of each channel's coefficient; that estimate is Gaussian around the label's response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cider.data.synthetic.parameters import FrameParameters, Response, Shape


class FrameModel:
    """One modality of one alignment."""

    def __init__(
        self,
        parameters: FrameParameters,
        response: dict[Response, np.ndarray],
        *,
        width: int,
        correlation: float,
    ) -> None:
        """Lay the channels over the features; the last feature that is free keeps the time.

        Args:
            parameters: the modality's channels.
            response: (G,) what each label drives; see ``responses``.
            width: number of features F.
            correlation: AR(1) coefficient of the noise, in [0, 1).
        """
        self._channels = parameters.channels
        self._width, self._correlation = width, correlation
        self._innovation = float(np.sqrt(1 - correlation**2))
        self._response_CG = np.stack([response[c.response] for c in self._channels])
        self._spread_C = np.array([channel.spread for channel in self._channels])
        self._features: list[slice] = []
        start = 0
        for channel in self._channels:
            count = max(1, int(channel.width_share * width))
            self._features.append(slice(start, start + count))
            start += count
        if start >= width:
            raise ValueError(f"channels need {start} of {width} features and leave none for time")

    def sample(
        self, labels_N: np.ndarray, lengths_N: np.ndarray, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Draw the frames of utterances.

        Args:
            labels_N: int64 (N,) numbers of grid points.
            lengths_N: int64 (N,) frames per utterance, at least 2.
            rng: source of randomness.

        Returns:
            N float32 arrays (S, F), views of one array.
        """
        coefficient_NC = self.sample_coefficients(labels_N, rng).astype(np.float32)
        row_R = np.repeat(np.arange(len(lengths_N)), lengths_N)
        step_R = np.arange(len(row_R)) - np.repeat(np.cumsum(lengths_N) - lengths_N, lengths_N)
        frames_RF = self._noise(row_R, step_R, lengths_N, rng)
        trend_R = _trend(step_R, lengths_N[row_R]).astype(np.float32)
        for column, (channel, features) in enumerate(
            zip(self._channels, self._features, strict=True)
        ):
            moved_R = coefficient_NC[row_R, column]
            if channel.shape == "trend":
                moved_R *= trend_R
            frames_RF[:, features] += moved_R[:, None] * self._direction(column)
        # Time shows in one feature (as pitch falls in speech), so that a model which reads frames
        # as a set can tell early from late.
        frames_RF[:, -1] -= trend_R
        return np.split(frames_RF, np.cumsum(lengths_N)[:-1])

    def sample_coefficients(self, labels_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return each utterance's coefficients, float64 (N, C): response plus personal spread."""
        normal_NC = rng.standard_normal((len(labels_N), len(self._channels)))
        return np.asarray(self._response_CG.T[labels_N] + self._spread_C * normal_NC)

    def error_variance(self, lengths_N: np.ndarray) -> np.ndarray:
        """Return the variance, given the coefficients, of what ``estimate`` returns, (N, C)."""
        distinct, which_N = np.unique(lengths_N, return_inverse=True)
        return np.stack([self._error_variance(int(length)) for length in distinct])[which_N]

    def estimate(self, frames_SF: np.ndarray) -> np.ndarray:
        """Return the best linear estimate of an utterance's coefficients, float64 (C,)."""
        white_SF = self._whiten(frames_SF.astype(np.float64))
        estimate_C = np.empty(len(self._channels))
        for column, features in enumerate(self._features):
            shape_S = self._whiten(self._shape(column, len(frames_SF))[:, None])[:, 0]
            pattern_SF = shape_S[:, None] * self._direction(column)
            estimate_C[column] = (white_SF[:, features] * pattern_SF).sum() / (pattern_SF**2).sum()
        return estimate_C

    def log_likelihood(self, estimate_NC: np.ndarray, lengths_N: np.ndarray) -> np.ndarray:
        """Return every label's log-likelihood given the estimates, up to a constant, (N, G)."""
        variance_NC = self.error_variance(lengths_N) + self._spread_C**2
        distance_NCG = estimate_NC[:, :, None] - self._response_CG
        return np.asarray((-0.5 * distance_NCG**2 / variance_NC[:, :, None]).sum(axis=1))

    def _error_variance(self, length: int) -> np.ndarray:
        information_C = [
            (self._whiten(self._shape(column, length)[:, None]) ** 2).sum() * channel.amplitude**2
            for column, channel in enumerate(self._channels)
        ]
        return 1.0 / np.array(information_C)

    def _direction(self, column: int) -> np.ndarray:
        """Return what coefficient 1 adds to the channel's features: alternating signs, float32."""
        features = self._features[column]
        count = features.stop - features.start
        size = self._channels[column].amplitude / np.sqrt(count)
        direction_F = np.where(np.arange(count) % 2 == 0, size, -size)
        return np.asarray(direction_F, np.float32)

    def _shape(self, column: int, length: int) -> np.ndarray:
        shape: Shape = self._channels[column].shape
        return np.ones(length) if shape == "level" else _trend(np.arange(length), length)

    def _whiten(self, frames_SF: np.ndarray) -> np.ndarray:
        """Return frames whose noise is independent and has variance 1."""
        white_SF = frames_SF.copy()
        white_SF[1:] = (frames_SF[1:] - self._correlation * frames_SF[:-1]) / self._innovation
        return white_SF

    def _noise(
        self,
        row_R: np.ndarray,
        step_R: np.ndarray,
        lengths_N: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Draw stationary unit AR(1) noise, float32 (R, F)."""
        noise_SNF = np.zeros((int(lengths_N.max()), len(lengths_N), self._width), np.float32)
        noise_SNF[step_R, row_R] = rng.standard_normal((len(row_R), self._width), np.float32)
        for step in range(1, len(noise_SNF)):
            noise_SNF[step] *= self._innovation
            noise_SNF[step] += self._correlation * noise_SNF[step - 1]
        return np.asarray(noise_SNF[step_R, row_R])


def _trend(step_R: np.ndarray, length_R: np.ndarray | int) -> np.ndarray:
    """Return -1 at the first step to 1 at the last, float64 (R,); lengths are at least 2."""
    return 2.0 * step_R / (length_R - 1) - 1.0
