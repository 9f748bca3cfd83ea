"""Seeds of single requests."""

from opd.rollout.seeds import request_seeds
from opd.types import Sampling


def drawn(seed: int, places: tuple[int, ...] = ()) -> Sampling:
    return Sampling(max_tokens=1, seed=seed, places=places)


def test_a_requests_seed_depends_on_its_place_only() -> None:
    assert request_seeds(drawn(7), 100)[:10] == request_seeds(drawn(7), 10)
    assert request_seeds(drawn(7, places=(3, 40)), 2) == [request_seeds(drawn(7), 100)[place] for place in (3, 40)]


def test_seeds_are_distinct_within_and_between_calls() -> None:
    seeds = [seed for call in range(20) for seed in request_seeds(drawn(call), 200)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
