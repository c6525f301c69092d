"""Routes found on a map under what was driven."""

import numpy as np

from drive.core.roadmap import Lane, Polygons, RoadMap
from drive.datasets.route import through


def lane(name: str, x0: float, x1: float, y: float) -> Lane:
    x = np.linspace(x0, x1, 21)
    line = np.column_stack([x, np.full(21, y), np.zeros(21)])
    return Lane(name, line, line[:, :2] + [0.0, 1.75], line[:, :2] - [0.0, 1.75], 15.0)


def test_a_lane_entered_at_its_very_end_still_leads_on():
    """A drive that crosses lanes which do not follow one another, as one that is lost does."""
    lanes = [lane("a", 0.0, 20.0, 0.0), lane("b", 0.0, 19.0, 3.5), lane("c", 0.0, 40.0, 7.0)]
    line = through(RoadMap("three", {item.id: item for item in lanes}, Polygons.from_rings([])), ("a", "b", "c"))
    assert np.isfinite(line).all() and line[0].tolist() == [0.0, 0.0] and line[-1].tolist() == [40.0, 7.0]
    assert (np.diff(line[:, 0]) > -2.0).all()
