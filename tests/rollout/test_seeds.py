"""Seeds of single requests."""

from opd.rollout.seeds import request_seeds


def test_a_requests_seed_depends_on_its_place_only() -> None:
    assert request_seeds(7, 100)[:10] == request_seeds(7, 10)


def test_seeds_are_distinct_within_and_between_calls() -> None:
    seeds = [seed for call in range(20) for seed in request_seeds(call, 200)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
