"""k-NN and linear probes on frozen features."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from isometry.errors import UserError
from isometry.evaluation.scores import Row, accuracy

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""As in DINO (Caron et al. 2021); the temperature is from Wu et al. 2018."""
INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidate inverse L2 penalties of the linear probe, chosen on a fifth of the training images."""
HELD_OUT = 0.2


def probe(
    train_ND: np.ndarray, train_labels_N: np.ndarray, test_MD: np.ndarray, test_labels_M: np.ndarray
) -> Row:
    """``knn`` and ``linear``: accuracies (:func:`isometry.evaluation.scores.accuracy`) of features on M test images.

    Raises:
        UserError: features that are not finite, or a class with fewer than two training images.
    """
    if not (np.isfinite(train_ND).all() and np.isfinite(test_MD).all()):
        raise UserError("evaluate: the network's features are not all finite, so no probe can be fitted")
    return {
        "knn": accuracy(nearest_neighbours(train_ND, train_labels_N, test_MD) == test_labels_M),
        "linear": accuracy(linear_probe(train_ND, train_labels_N, test_MD) == test_labels_M),
    }


def nearest_neighbours(
    train_ND: np.ndarray, train_labels_N: np.ndarray, test_MD: np.ndarray, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """The class with most votes among each image's k nearest training images, (M,): argmax_c Σ_i [y_i = c]·w_i.

    A vote weighs w_i = exp(cos(x, x_i) / 0.07) (Z. Wu et al., "Unsupervised feature learning via non-parametric
    instance discrimination", CVPR 2018, sec. 3.4). k is ``neighbours``, or all training images if there are fewer.
    """
    votes = KNeighborsClassifier(
        min(neighbours, len(train_ND)), metric="cosine", algorithm="brute", weights=_vote
    )
    return votes.fit(train_ND, train_labels_N).predict(test_MD)


def linear_probe(train_ND: np.ndarray, train_labels_N: np.ndarray, test_MD: np.ndarray) -> np.ndarray:
    """Predictions, (M,), of multinomial logistic regression on standardised features.

    The penalty with the best accuracy on a held-out fifth of the training images is chosen (the strongest, if equal);
    the classifier is then fitted on all of them.

    Raises:
        UserError: a class with fewer than two training images, so that none can be held out.
    """
    classes, counts = np.unique(train_labels_N, return_counts=True)
    if counts.min() < 2:
        raise UserError(
            f"evaluate: class {classes[counts.argmin()]} has a single training image, and a probe needs two; "
            "add images of it, or remove the class"
        )
    # At least one image of each class on either side.
    held_out = max(len(classes), round(HELD_OUT * len(train_labels_N)))
    split = StratifiedShuffleSplit(1, test_size=held_out, random_state=0)
    fitted, held = next(split.split(train_ND, train_labels_N))
    trials = [
        fit_linear(c, train_ND[fitted], train_labels_N[fitted]).score(train_ND[held], train_labels_N[held])
        for c in INVERSE_PENALTIES
    ]
    best = INVERSE_PENALTIES[int(np.argmax(trials))]
    return fit_linear(best, train_ND, train_labels_N).predict(test_MD)


def _vote(distances_MK: np.ndarray) -> np.ndarray:
    # Relative to the nearest: the result is unchanged and the exponents stay small.
    return np.exp((distances_MK.min(1, keepdims=True) - distances_MK) / TEMPERATURE)


def fit_linear(inverse_penalty: float, features_ND: np.ndarray, labels_N: np.ndarray) -> Pipeline:
    """Multinomial logistic regression on standardised features, with an L2 penalty."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000))
    with warnings.catch_warnings():
        # Predictions converge long before the weights do.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(features_ND.astype(np.float64), labels_N)
