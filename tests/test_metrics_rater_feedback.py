"""Waymo's rater feedback score: hand-made cases, and cases of waymo-open-dataset's own unit test (99a4cb3, Apache-2.0)."""

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.metrics.rater_feedback import rater_feedback_score


def straight(speed, steps=20, rate=4):
    """Waypoints (steps, 2) along x."""
    return np.column_stack([speed * np.arange(1, steps + 1) / rate, np.zeros(steps)])


def test_a_plan_that_equals_a_reference_gets_its_rating_even_below_the_floor():
    reference = straight(8.0)
    for rating in (10.0, 7.0, 2.0):
        assert rater_feedback_score(reference[None], [reference], [rating], 8.0) == pytest.approx([rating])


def test_a_plan_far_from_all_references_gets_the_floor():
    assert rater_feedback_score(straight(30.0)[None], [straight(8.0)], [10.0], 8.0) == pytest.approx([4.0])


def test_thresholds_are_wider_along_the_reference_and_at_speed():
    reference = straight(11.0)
    ahead, beside = reference + [4.0, 0.0], reference + [0.0, 1.0]
    assert rater_feedback_score(np.stack([ahead, beside]), [reference], [10.0], 11.0) == pytest.approx([10.0, 10.0])
    # slow: thresholds halve; at 3 s the excess is 1, at 5 s 4 / 3.6 - 1
    expected = (10 * 0.1**1.0 + 10 * 0.1 ** (4.0 / 3.6 - 1.0)) / 2
    assert rater_feedback_score(ahead[None], [reference], [10.0], 1.4) == pytest.approx([expected])
    assert rater_feedback_score(ahead[None], [reference], [10.0], 6.2)[0] < 10.0  # three quarters of them


def test_the_best_reference_is_taken_at_each_time_by_itself():
    early, late = straight(8.0), straight(8.0)
    early[15:] += [0.0, 50.0]  # right until 3 s
    late[:15] += [0.0, 50.0]  # right at 5 s
    late[15:] += [0.0, 0.0]
    assert rater_feedback_score(straight(8.0)[None], [early, late], [10.0, 6.0], 11.0) == pytest.approx([8.0])


def test_references_are_cut_and_prolonged():
    short, long = straight(0.0, 3), straight(8.0, 40)
    assert rater_feedback_score(straight(0.0)[None], [short], [9.0], 0.0) == pytest.approx([9.0])
    assert rater_feedback_score(straight(8.0)[None], [long], [9.0], 8.0) == pytest.approx([9.0])


UPSTREAM = (  # speed, rated references at 1 Hz, ratings, plans at 1 Hz, expected without the floor
    (
        6.091951370239258,
        [
            [
                [6.116130709045365, -0.0064596553261253575],
                [11.283734185302137, 0.06930987395980992],
                [14.445738365972602, 0.22190593950062976],
                [15.863924647712793, 0.3513780388188934],
                [16.220629990528778, 0.3979054272808753],
            ],
            [
                [6.3023491185483635, 0.027379927538731863],
                [13.151817455762284, 0.5152881368030648],
                [20.08838570878538, 2.2066481916076555],
                [26.655734316468852, 5.669334168663681],
                [32.556009257534924, 10.914624712820569],
            ],
        ],
        [8, 10],
        [
            [[6.315426478653762, 0.043856417986262386], [12.975259841223988, 0.42393014905155724], [19.67305036031098, 1.8076265692643574],
             [26.044775930205105, 4.679681408367287], [31.774181598299265, 8.93842790671124]],
            [[6.22, 0.06], [12.87, 0.42], [19.53, 1.58], [25.81, 3.93], [31.42, 7.51]],
            [[6.233642578125, 0.12418137490749359], [12.584113121032715, 0.8310785293579102], [18.869394302368164, 2.611462354660034],
             [25.005125045776367, 5.8199005126953125], [31.0169620513916, 10.563572883605957]],
        ],
        [10.0, 7.307854143879492, 10.0],
    ),
    (
        7.716310501098633,
        [
            [[5.560453799210904, -0.004478094274702471], [8.225178876764971, 0.06945586454486374], [8.981938003877872, 0.13376779402065608],
             [9.019658779669157, 0.17555393283325316], [9.225985951119242, 0.23028404494718302], [1000.0, 1000.0]],
            [[5.916309994790822, -0.026716178826546866], [9.30287526924758, -0.12584874734611162], [11.293785754835312, -0.27650364630528657],
             [12.9184486854341, -0.48288228974388403], [14.58230516729327, -0.7568973709328475]],
            [[6.141386389118566, -0.020121756825716375], [10.561775492192169, -0.09057494033771718], [14.474645343934071, -0.2161768449137753],
             [18.882845193998037, -0.35637872008717864], [24.11468565241205, -0.3829896472898042]],
        ],
        [10, 8, 6],
        [
            [[6.171509239622196, -0.009397453076275042], [8.000396968767177, 0.015122155172520024], [8.127134351157906, 0.013057147475194597],
             [8.127134351157906, 0.013057147475194597], [8.127134351157906, 0.013057147475194597]],
            [[5.99, 0.04], [10.71, 0.09], [15.76, 0.16], [21.19, 0.29], [26.88, 0.46]],
            [[6.49681282043457, -0.08341606706380844], [11.86185359954834, -0.7157369256019592], [16.411989212036133, -2.882720470428467],
             [19.67278480529785, -7.174043655395508], [21.36919403076172, -13.386308670043945]],
        ],
        [10.0, 6.0, 0.0857031037460114],
    ),
)  # fmt: skip


@pytest.mark.parametrize(("speed", "references", "ratings", "plans", "expected"), UPSTREAM)
def test_upstream_cases(speed, references, ratings, plans, expected):
    got = rater_feedback_score(np.array(plans), [np.array(r) for r in references], ratings, speed, rate=1)
    np.testing.assert_allclose(got, np.maximum(expected, 4.0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("plans", "references", "ratings", "told"),
    [
        (np.zeros((1, 19, 2)), [straight(1.0)], [5.0], "20 or more"),
        (np.zeros((1, 20, 2)), [], [], "at least one"),
        (np.zeros((1, 20, 2)), [straight(1.0)], [-1.0], "nobody rated"),
        (np.zeros((1, 20, 2)), [straight(1.0)], [float("nan")], "0..10"),
        (np.full((1, 20, 2), np.nan), [straight(1.0)], [5.0], "finite"),
        (np.zeros((1, 20, 2)), [np.zeros((0, 2))], [5.0], "at least one"),
    ],
)
def test_bad_input_is_refused(plans, references, ratings, told):
    with pytest.raises(DataError, match=told):
        rater_feedback_score(plans, references, ratings, 1.0)
