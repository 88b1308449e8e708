"""Laws of the query samplers."""

import numpy as np
import pytest
import torch
from scipy import stats

from danceopd_core.algorithm.flow import linear_sigmas
from danceopd_core.algorithm.query import QUERIES, Beta, BySigma, Uniform, every, query_distribution, query_text

N, DRAWS = 16, 20_000
SIGMAS = linear_sigmas(N)


def chi2_p(indices: torch.Tensor, expected: np.ndarray) -> float:
    """The p-value of the drawn histogram; bins of fewer than 5 expected draws are joined with a neighbour."""
    counts = np.bincount(indices.flatten().numpy(), minlength=len(expected)).astype(float)
    expected = expected * counts.sum()
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    return float(stats.chisquare(counts[keep], expected[keep]).pvalue)


@pytest.mark.parametrize(("a", "b"), [(5, 2), (5, 5), (2, 5), (1.5, 0.7)])
def test_beta_is_the_law_of_floor_u_n(a: float, b: float, generator):
    exact = np.diff(stats.beta.cdf(np.arange(N + 1) / N, a, b))
    assert chi2_p(Beta(a, b)(SIGMAS, DRAWS, generator), exact) > 1e-3


def test_beta_without_replacement_is_redrawing_until_all_differ(generator):
    """P({i, j}) = p_i p_j / (1 - p_i) + p_j p_i / (1 - p_j)."""
    states = 4
    p = np.diff(stats.beta.cdf(np.arange(states + 1) / states, 5, 2))
    drawn = Beta(5, 2, k=2)(linear_sigmas(states), DRAWS, generator)
    pairs = np.array([[i, j] for i in range(states) for j in range(i + 1, states)])
    exact = np.array([p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]) for i, j in pairs])
    code = {tuple(pair): number for number, pair in enumerate(pairs.tolist())}
    assert chi2_p(torch.tensor([code[tuple(row)] for row in drawn.tolist()]), exact) > 1e-3


def test_uniform_is_uniform(generator):
    assert chi2_p(Uniform(3)(SIGMAS, DRAWS, generator), np.full(N, 1 / N)) > 1e-3


SAMPLERS = [
    every,
    Uniform(5),
    Beta(5, 2, k=5),
    Beta(2, 5, k=N),
    BySigma(0.1, 0.8, k=4),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_rows_are_sorted_distinct_indices_of_the_path(sampler, generator):
    indices = sampler(SIGMAS, 200, generator)
    assert indices.dtype == torch.long
    assert len(indices) == 200
    assert (indices.diff() > 0).all()
    assert indices.min() >= 0
    assert indices.max() < N


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_same_generator_gives_the_same_queries(sampler):
    drawn = [sampler(SIGMAS, 8, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*drawn)


def test_every_is_the_whole_path(generator):
    assert every(SIGMAS, 2, generator).tolist() == [list(range(N))] * 2


def test_the_query_distribution_is_that_of_the_sampler():
    bins = query_distribution(Beta(5, 2), SIGMAS)
    exact = Beta(5, 2).probabilities(N)
    kept = (exact >= 0.005).nonzero().flatten()
    assert [part.sigma for part in bins] == pytest.approx(SIGMAS[kept].tolist())
    assert [part.share for part in bins] == pytest.approx(exact[kept].tolist(), abs=0.006)
    assert [part.share for part in query_distribution(every, SIGMAS)] == [1 / N] * N
    assert {part.sigma for part in query_distribution(BySigma(0.2, 0.4, 2), SIGMAS)} <= {
        s for s in SIGMAS.tolist() if s <= 0.4
    }


def test_a_long_path_is_summarised_in_bins():
    bins = query_distribution(Uniform(), linear_sigmas(1000))
    assert len(bins) == 16
    assert sum(part.share for part in bins) == pytest.approx(1)
    assert bins[0].sigma == pytest.approx(1 - 0.031, abs=3e-3)


def test_the_text_names_sigmas_and_shares():
    assert (
        query_text(query_distribution(every, linear_sigmas(4)))
        == "queries at sigma 1 25 %, 0.75 25 %, 0.5 25 %, 0.25 25 %"
    )


def test_by_sigma_is_uniform_in_sigma_on_a_shifted_grid(generator):
    low, high = 0.1, 0.9
    sigmas = linear_sigmas(64, shift=3.0)
    drawn = sigmas[BySigma(low, high)(sigmas, DRAWS, generator)].flatten().numpy()
    assert drawn.min() >= low
    assert drawn.max() <= high
    for cut in (0.3, 0.5, 0.7):
        assert (drawn < cut).mean() == pytest.approx((cut - low) / (high - low), abs=0.03)


def test_by_sigma_with_one_state_in_range_returns_it(generator):
    assert BySigma(0.49, 0.51)(SIGMAS, 3, generator).tolist() == [[8]] * 3


def test_by_sigma_names_a_range_without_states(generator):
    with pytest.raises(ValueError, match=r"no state of the path has sigma in \[0\.01, 0\.05\]"):
        BySigma(0.01, 0.05)(SIGMAS, 1, generator)
    with pytest.raises(ValueError, match="low < high"):
        BySigma(0.5, 0.5)


@pytest.mark.parametrize(
    "sampler", [Uniform(17), Beta(5, 2, k=17), Uniform(0)], ids=lambda value: getattr(value, "__name__", str(value))
)
def test_more_states_than_the_path_has_are_refused(sampler, generator):
    with pytest.raises(ValueError, match="queries per path of 16 states"):
        sampler(SIGMAS, 1, generator)


def test_the_biases_favour_the_sigmas_of_their_names(generator):
    mean = {name: QUERIES[name](SIGMAS, DRAWS, generator).double().mean() for name in ("low", "mid", "high")}
    assert mean["low"] > mean["mid"] > mean["high"]
    assert mean["low"].item() == pytest.approx(10.9, abs=0.1)
