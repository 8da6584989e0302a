from __future__ import annotations

import numpy as np
import pytest

from deploykit.calibration.check import DataObserver, DataStatistics, check_data
from deploykit.errors import DataError
from deploykit.preprocess import Preprocess

CONTRACT = Preprocess(size=(32, 32))
MEAN = np.float32(CONTRACT.mean).reshape(3, 1, 1)
STD = np.float32(CONTRACT.std).reshape(3, 1, 1)


def images(count: int = 20, seed: int = 0) -> np.ndarray:
    """Blobs in 0..1, (n, 3, 32, 32)."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (count, 3, 4, 4))
    return np.kron(coarse, np.ones((1, 1, 8, 8))).astype(np.float32)


def normalised(data: np.ndarray) -> np.ndarray:
    return ((data - MEAN) / STD).astype(np.float32)


def observe(data: np.ndarray) -> DataStatistics:
    observer = DataObserver()
    for sample in data:
        observer.add(sample)
    return observer.result()


def test_normalised_images_pass_without_a_word() -> None:
    assert check_data(observe(normalised(images())), CONTRACT) == ()
    assert check_data(observe(images()), None) == ()


def test_statistics() -> None:
    data = normalised(images())
    found = observe(data)
    assert found.samples == found.distinct == 20
    assert found.blank == 0
    np.testing.assert_allclose(found.channel_means, data.mean(axis=(0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found.channel_stds, data.std(axis=(0, 2, 3)), atol=1e-5)
    assert found.neighbour_correlation is not None
    assert found.neighbour_correlation > 0.7


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("count", [2, 40])
def test_noise_is_refused_and_only_warned_of_on_request(kind: str, count: int) -> None:
    rng = np.random.default_rng(1)
    shape = (count, 3, 32, 32)
    noise = rng.standard_normal(shape) if kind == "normal" else rng.uniform(-2, 2, shape)
    found = observe(noise.astype(np.float32))
    assert found.neighbour_correlation == pytest.approx(0.0, abs=0.05)
    with pytest.raises(DataError, match="white noise"):
        check_data(found, None)
    warnings = check_data(found, None, allow_suspicious=True)
    assert any("white noise" in w for w in warnings)


def test_images_with_noise_on_them_are_images() -> None:
    rng = np.random.default_rng(2)
    noisy = normalised(images()) + 0.5 * rng.standard_normal((20, 3, 32, 32))
    found = observe(noisy.astype(np.float32))
    assert not [w for w in check_data(found, None) if "noise" in w]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((20, 3, 8, 8), 0.5), "every element"),
        (np.arange(20.0).reshape(20, 1, 1, 1) * np.ones((20, 3, 8, 8)), "blank"),
        (np.repeat(images(1), 20, axis=0), "are the same"),
    ],
)
def test_constant_sets_are_refused_whatever_is_allowed(data: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_data(observe(data.astype(np.float32)), None, allow_suspicious=True)


def test_not_a_number_is_refused_with_the_samples_number() -> None:
    data = images(3)
    data[2, 0, 1, 1] = np.nan
    with pytest.raises(DataError, match=r"sample 2 .* NaN"):
        observe(data)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        DataObserver().result()


def test_images_that_were_not_normalised_at_all_are_refused() -> None:
    found = observe(images() * 255)
    with pytest.raises(DataError, match="reaches from"):
        check_data(found, CONTRACT)
    assert any("reaches from" in w for w in check_data(found, CONTRACT, allow_suspicious=True))


def test_values_a_little_outside_of_the_contract_are_warned_of() -> None:
    (warning,) = check_data(observe(normalised(images()) * 1.2), CONTRACT)
    assert "reaches from" in warning


def test_an_unusual_mean_or_deviation_is_warned_of() -> None:
    dark = check_data(observe(normalised(images() * 0.1)), CONTRACT)
    assert any("mean per channel" in w for w in dark)
    unscaled = check_data(observe(images()), CONTRACT)
    assert any("standard deviation per channel" in w for w in unscaled)


def test_few_samples_duplicates_and_blanks_are_warned_of() -> None:
    few = images(5)
    few[4] = few[0]
    few[3] = 0.5
    warnings = check_data(observe(normalised(few)), None)
    assert any(w.startswith("only 5 calibration sample") for w in warnings)
    assert "1 of 5 calibration samples are duplicates" in warnings
    blank = images(5)
    blank[3] = 0.5
    assert "1 calibration sample(s) are blank" in check_data(observe(blank), None)


def test_inputs_that_are_no_images_have_no_neighbours() -> None:
    found = observe(np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32))
    assert found.neighbour_correlation is None
    assert len(found.channel_means) == 1
    assert check_data(found, None) == ()
