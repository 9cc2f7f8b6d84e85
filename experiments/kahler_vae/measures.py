"""What is measured of images: smoothness, semantic outliers, variety.

Images are [n, 8, 8] in the data's units, clipped to [0, 1] as they would be shown. Without the clip
a few exploding samples of a polynomial decoder would decide every mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import pairwise_distances

CLASSES = 10
TREES = 300
HIGH_FREQUENCY = 3  # of the Nyquist frequency 4, in cycles per image
RECALL_NEIGHBOURS = 3  # Kynkäänniemi et al. 2019
COVERAGE_NEIGHBOURS = 5  # Naeem et al. 2020


def total_variation(images: np.ndarray) -> float:
    """The mean absolute difference of neighbouring pixels, across and down, of images [n, s, s]."""
    across, down = np.abs(np.diff(images, axis=2)), np.abs(np.diff(images, axis=1))
    return float((across.mean() + down.mean()) / 2)


def high_frequency(images: np.ndarray) -> float:
    """The mean share of an image's energy, its average apart, at max(|k_x|, |k_y|) ≥ 3.

    k are whole cycles per image, from -s/2 to s/2 - 1. A constant image counts 0.
    """
    side = images.shape[-1]
    energy = np.abs(np.fft.fft2(images)) ** 2
    energy[:, 0, 0] = 0
    k = np.abs(np.fft.fftfreq(side, 1 / side))
    high = np.maximum(k[:, None], k[None, :]) >= HIGH_FREQUENCY
    total = energy.sum((1, 2))
    share = np.where(total > 1e-20, energy[:, high].sum(1) / np.maximum(total, 1e-20), 0)
    return float(share.mean())


def path_roughness(paths: np.ndarray) -> float:
    """How unevenly images change along paths [n, points, s, s] at equal steps of the latent.

    The mean over paths, inner points and pixels of the squared second difference.
    """
    return float((np.diff(paths, n=2, axis=1) ** 2).mean())


def relative_path_roughness(paths: np.ndarray) -> float:
    """The same per path over the squared change from end to end, which shrinking cannot lower.

    The mean over paths of Σ‖x_{t+1} - 2x_t + x_{t-1}‖² (T - 1)³ / ‖x_T - x_1‖², T points: the
    integral of ‖ẍ‖² over a path of unit duration. Of an image sequence that is affine in t it is 0.
    """
    flat = paths.reshape(*paths.shape[:2], -1)
    bends = (np.diff(flat, n=2, axis=1) ** 2).sum((1, 2)) * (flat.shape[1] - 1) ** 3
    ends = ((flat[:, -1] - flat[:, 0]) ** 2).sum(1)
    return float((bends / ends).mean())


def class_entropy(classes: np.ndarray) -> float:
    """The entropy in nats of the histogram of predicted classes [n]; log 10 where all are equal."""
    share = np.bincount(classes, minlength=CLASSES) / len(classes)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def recall(real: np.ndarray, generated: np.ndarray) -> float:
    """The share of real points [n, D] that lie in a generated point's ball, which has k = 3.

    A point's ball reaches to its k-th nearest neighbour in its own set. Improved recall of
    Kynkäänniemi et al. 2019 (arXiv 1904.06991), here with pixels for features.
    """
    radii = _neighbour_distance(generated, RECALL_NEIGHBOURS)
    return float((pairwise_distances(real, generated) <= radii[None, :]).any(1).mean())


def coverage(real: np.ndarray, generated: np.ndarray) -> float:
    """The share of real points [n, D] with a generated point in their ball, which has k = 5.

    Naeem et al. 2020 (arXiv 2002.09797), here with pixels for features. Unlike recall it cannot be
    raised by a few generated points far out, as the balls are the real points'.
    """
    radii = _neighbour_distance(real, COVERAGE_NEIGHBOURS)
    return float((pairwise_distances(real, generated).min(1) <= radii).mean())


def _neighbour_distance(points: np.ndarray, k: int) -> np.ndarray:
    """From each point [n, D] to its k-th nearest other point, [n]."""
    return np.partition(pairwise_distances(points), k, axis=1)[:, k]  # the 0-th is itself


@dataclass(frozen=True)
class Judge:
    """A classifier of real digits, and what real held-out digits look like to it.

    Attributes:
        classifier: extremely randomised trees, fitted to training images only; a class's
            probability is its share of the votes. Of six classifiers of like accuracy (trees,
            logistic regression, support vectors, perceptrons) they were the ones that are unsure
            of noise; most others are sure of it.
        train: the training images as vectors [n, D].
        confidence: the 5% quantile of held-out digits' largest class probability.
        distance: the 95% quantile of their distance to the nearest training image.
        accuracy: the classifier's on held-out digits.
    """

    classifier: ExtraTreesClassifier
    train: np.ndarray
    confidence: float
    distance: float
    accuracy: float

    def judge(self, images: np.ndarray) -> dict[str, float]:
        """Rates of outliers among images [n, s, s], and the entropy of their predicted classes.

        A semantic outlier is both: less sure a digit than 95% of real held-out digits are, and
        farther from every training image than 95% of them are.
        """
        flat = images.reshape(len(images), -1)
        probability = self.classifier.predict_proba(flat)
        unsure = probability.max(1) < self.confidence
        far = pairwise_distances(flat, self.train).min(1) > self.distance
        return {
            "outliers": float((unsure & far).mean()),
            "unsure": float(unsure.mean()),
            "far": float(far.mean()),
            "class_entropy": class_entropy(probability.argmax(1)),
        }


def fit_judge(
    train: np.ndarray, labels: np.ndarray, held_out: np.ndarray, held_out_labels: np.ndarray
) -> Judge:
    """Fit the classifier to training images [n, s, s], and take thresholds from held-out ones."""
    flat = train.reshape(len(train), -1)
    other = held_out.reshape(len(held_out), -1)
    classifier = ExtraTreesClassifier(TREES, random_state=0)
    classifier.fit(flat, labels)
    probability = classifier.predict_proba(other)
    return Judge(
        classifier=classifier,
        train=flat,
        confidence=float(np.quantile(probability.max(1), 0.05)),
        distance=float(np.quantile(pairwise_distances(other, flat).min(1), 0.95)),
        accuracy=float((probability.argmax(1) == held_out_labels).mean()),
    )


def of_samples(images: np.ndarray, judge: Judge, real: np.ndarray) -> dict[str, float]:
    """All measures of samples [n, s, s]; recall and coverage against as many real held-out images.

    These two depend on how many samples there are: they are taken over batches of ``len(real)``
    samples (fewer if there are fewer) and averaged.
    """
    flat, reference = images.reshape(len(images), -1), real.reshape(len(real), -1)
    count = max(1, math.floor(len(flat) / len(reference)))
    batches = [flat[i * len(reference) : (i + 1) * len(reference)] for i in range(count)]
    return {
        "total_variation": total_variation(images),
        "high_frequency": high_frequency(images),
        **judge.judge(images),
        "recall": float(np.mean([recall(reference, batch) for batch in batches])),
        "coverage": float(np.mean([coverage(reference, batch) for batch in batches])),
    }
