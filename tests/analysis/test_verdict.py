"""Verdicts of constructed trainings."""

import json

import pytest
from statsmodels.stats.multitest import multipletests

from lightning_lottery import ConfigurationError
from lightning_lottery.analysis import Question, Verdict
from lightning_lottery.analysis.verdict import Training
from lightning_lottery.tickets import RoundId

DENSE = {0: 0.90, 1: 0.91, 2: 0.89, 3: 0.92}
BETTER = {0: 0.95, 1: 0.955, 2: 0.945, 3: 0.96}
ABOUT = {0: 0.91, 1: 0.90, 2: 0.90, 3: 0.91}
ALMOST = {0: 0.91, 1: 0.90, 2: 0.90, 3: 0.911}
WORSE = {0: 0.80, 1: 0.82, 2: 0.79, 3: 0.81}
SAME = Question("acc", "max", "end", tolerance=0.02)


def made(*trainings, question=SAME, seeds=range(4)):
    return Verdict.of([Training(*training) for training in trainings], list(seeds), question)


def example(question=SAME):
    return made(
        (RoundId(0), 1.0, DENSE, (), {0: 40, 1: 50, 2: 45, 3: 42}),
        (RoundId(1), 0.5, BETTER, (), {0: 20, 1: 28, 2: 26, 3: 21}),
        (RoundId(2), 0.2, ABOUT, (), {0: 30, 1: 52}),
        (RoundId(1, "shuffle_mask"), 0.5, WORSE),
        (RoundId(2, "shuffle_mask"), 0.2, ALMOST),
        question=question,
    )


def test_every_training_is_compared_with_the_dense_one_and_every_control_with_its_ticket():
    verdict = example()
    assert verdict[0].word is None
    assert verdict[0].metric.to_dense is None
    assert [row.word for row in verdict.rows] == [None, "winning", "matching", "worse", "matching"]
    assert verdict[1].metric.mean == pytest.approx(0.9525)
    assert verdict[1].metric.deviation == pytest.approx(0.00645497)
    assert verdict[1].metric.to_dense.mean == pytest.approx(0.0475)
    assert verdict[1].metric.from_ticket is None
    control = verdict["shuffle_mask"][1].metric
    assert control.to_dense.mean == pytest.approx(-0.1)
    assert control.from_ticket.mean == pytest.approx(0.1475), "ticket - control"
    assert verdict["shuffle_mask"][2].metric.from_ticket.mean == pytest.approx(-0.00025)
    assert (list(verdict), len(verdict), verdict.branches()) == ([0, 1, 2], 3, ["ticket", "shuffle_mask"])
    with pytest.raises(KeyError, match=r"no ticket of round 7; the rounds are \[0, 1, 2\]"):
        verdict[7]
    with pytest.raises(KeyError, match="no branch 'x'"):
        verdict["x"]


def test_p_values_are_adjusted_among_tests_of_their_kind():
    verdict = example()
    kinds = [
        [verdict[number].metric.to_dense for number in (1, 2)],
        [verdict["shuffle_mask"][number].metric.to_dense for number in (1, 2)],
        [verdict["shuffle_mask"][number].metric.from_ticket for number in (1, 2)],
    ]
    for tests in kinds:
        expected = multipletests([test.p for test in tests], method="holm")[1]
        assert [test.p_holm for test in tests] == pytest.approx(list(expected))


def test_steps_are_compared_over_the_seeds_that_reach_the_value():
    assert example()[1].steps is None, "not asked"
    verdict = example(Question("acc", "max", "end", reach=0.88))
    assert verdict[0].steps.mean == 44.25
    assert verdict[1].steps.to_dense.mean == pytest.approx(-20.5)
    assert (verdict[2].steps.n, verdict[2].steps.to_dense.mean) == (2, -4)
    control = verdict["shuffle_mask"][1].steps
    assert (control.n, control.mean, control.to_dense, control.from_ticket) == (0, None, None, None)


def test_seeds_without_a_value_make_it_inconclusive():
    without = {seed: value for seed, value in BETTER.items() if seed != 3}
    verdict = made((RoundId(0), 1.0, DENSE), (RoundId(1), 0.5, without, [3]))
    assert verdict[1].metric.to_dense.low > 0
    assert (verdict[1].word, verdict[1].missing) == ("inconclusive", [3])
    fewer = {seed: value for seed, value in DENSE.items() if seed != 3}
    verdict = made((RoundId(0), 1.0, fewer, [3]), (RoundId(1), 0.5, BETTER))
    assert verdict[1].word == "inconclusive", "the dense round of a seed has diverged"
    verdict = made((RoundId(0), 1.0, DENSE), (RoundId(1), 0.5, without))
    assert verdict[1].word == "winning", "a seed that has not trained the round yet"


def test_without_a_dense_round_only_controls_are_compared():
    verdict = made((RoundId(1), 0.5, BETTER), (RoundId(1, "x"), 0.5, WORSE))
    assert [row.word for row in verdict.rows] == [None, None]
    assert verdict["x"][1].metric.from_ticket.low > 0


def test_the_noise_floor_is_compared_like_any_other():
    verdict = made((RoundId(0), 1.0, DENSE), (RoundId(0, "dense_again"), 1.0, ABOUT))
    again = verdict["dense_again"][0]
    assert again.word == "matching"
    assert again.metric.from_ticket is None, "the same difference again"


def test_the_file_has_everything(tmp_path):
    verdict = example(Question("acc", "max", "end", reach=0.88))
    verdict.save(tmp_path / "verdict.json")
    with pytest.raises(ConfigurationError, match=r"is a folder\. Write the path of a file"):
        verdict.save(tmp_path)
    read = json.loads((tmp_path / "verdict.json").read_text())
    assert (read["metric"], read["mode"], read["seeds"], len(read["rows"])) == ("acc", "max", [0, 1, 2, 3], 5)
    row = read["rows"][1]
    assert (row["round"], row["branch"], row["density"], row["word"]) == (1, "ticket", 0.5, "winning")
    assert row["metric"]["values"] == {str(seed): value for seed, value in BETTER.items()}
    assert row["metric"]["to_dense"]["p_holm"] == verdict[1].metric.to_dense.p_holm
    assert row["steps"]["n"] == 4
    assert read["rows"][3]["metric"]["from_ticket"]["low"] == verdict["shuffle_mask"][1].metric.from_ticket.low


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, "mode='best' is neither 'min' nor 'max'"),
        ({"at": "last"}, "at='last' is neither 'best' nor 'end'"),
        ({"tolerance": -0.1}, "tolerance=-0.1 must be a number of at least 0"),
        ({"confidence": 95}, "confidence=95 must be a number between 0 and 1, both excluded"),
        ({"reach": float("inf")}, "reach=inf must be a number other than NaN or infinity"),
    ],
)
def test_bad_questions_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Question(**{"metric": "acc", "mode": "max", "at": "end", **options})
