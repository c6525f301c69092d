"""The 41 vehicles of CARLA 0.9.16: ids, generations and types after its vehicle catalogue, measures as their makers published them.

What exists in CARLA only (cola lorry, fire engine, heavy lorry), and two-wheelers with their riders, have the boxes that CARLA 0.9.15
serves to clients. Where CARLA's model is of no certain year, the measures are those of the year that its shape is nearest to.
"""

from __future__ import annotations

import math

from drive.simulators.carla_server.blueprints import BOOL, COLOUR, INT, STRING, Attribute, Blueprint, fixed, role
from drive.simulators.carla_server.layouts import Kind
from drive.simulators.carla_server.vehicle_model import CarParams

# id: length, width without mirrors, height, wheel base m, mass kg, engine kW, top speed km/h, turning circle m, generation, special_type
CARS = {
    "audi.a2": (3.826, 1.673, 1.553, 2.405, 895, 55, 173, 10.5, 1, ""),
    "audi.etron": (4.901, 1.935, 1.629, 2.928, 2490, 265, 200, 12.2, 1, "electric"),
    "audi.tt": (4.177, 1.832, 1.353, 2.505, 1335, 169, 250, 11.0, 1, ""),
    "bmw.grandtourer": (4.556, 1.800, 1.608, 2.780, 1505, 141, 220, 11.8, 1, ""),
    "chevrolet.impala": (5.113, 1.854, 1.496, 2.837, 1661, 227, 240, 11.8, 1, ""),
    "citroen.c3": (3.996, 1.749, 1.474, 2.540, 1165, 81, 188, 10.9, 1, ""),
    "dodge.charger_2020": (5.040, 1.905, 1.479, 3.052, 1801, 218, 210, 11.8, 2, ""),
    "dodge.charger_police": (5.077, 1.905, 1.480, 3.048, 1930, 276, 235, 11.8, 1, "emergency"),
    "dodge.charger_police_2020": (5.040, 1.905, 1.479, 3.052, 1950, 276, 225, 11.8, 2, "emergency"),
    "ford.crown": (5.385, 1.984, 1.483, 2.911, 1860, 178, 193, 12.3, 2, "taxi"),
    "ford.mustang": (4.663, 1.801, 1.312, 2.743, 1400, 149, 180, 11.6, 1, ""),
    "jeep.wrangler_rubicon": (3.881, 1.872, 1.865, 2.424, 1878, 209, 180, 10.6, 1, ""),
    "lincoln.mkz_2017": (4.925, 1.864, 1.476, 2.850, 1696, 183, 241, 11.3, 1, ""),
    "lincoln.mkz_2020": (4.925, 1.864, 1.476, 2.850, 1696, 183, 241, 11.3, 2, ""),
    "mercedes.coupe": (5.065, 1.871, 1.418, 2.955, 1995, 285, 250, 11.6, 1, ""),
    "mercedes.coupe_2020": (4.686, 1.810, 1.405, 2.840, 1505, 135, 235, 11.2, 2, ""),
    "micro.microlino": (2.435, 1.500, 1.459, 1.570, 513, 12.5, 90, 8.4, 1, "electric"),
    "mini.cooper_s": (3.714, 1.683, 1.407, 2.467, 1205, 128, 225, 10.7, 1, ""),
    "mini.cooper_s_2021": (3.850, 1.727, 1.414, 2.495, 1320, 131, 235, 10.8, 2, ""),
    "nissan.micra": (3.780, 1.665, 1.525, 2.450, 980, 59, 170, 9.3, 1, ""),
    "nissan.patrol": (4.440, 1.930, 1.840, 2.400, 2200, 118, 160, 11.2, 1, ""),
    "nissan.patrol_2021": (5.165, 1.995, 1.940, 3.075, 2750, 298, 210, 12.5, 2, ""),
    "seat.leon": (4.183, 1.742, 1.439, 2.513, 1250, 132, 229, 10.9, 1, ""),
    "tesla.model3": (4.694, 1.849, 1.443, 2.875, 1760, 211, 225, 11.6, 1, "electric"),
    "toyota.prius": (4.540, 1.760, 1.470, 2.700, 1375, 90, 180, 10.8, 1, "electric"),
}
TRUCKS = {
    "carlamotors.carlacola": (5.204, 2.200, 2.467, 3.400, 4500, 110, 130, 13.0, 1, ""),
    "carlamotors.european_hgv": (7.936, 2.550, 3.462, 4.700, 9000, 330, 125, 16.0, 2, ""),
    "carlamotors.firetruck": (8.468, 2.550, 3.827, 4.800, 14000, 220, 120, 17.0, 2, "emergency"),
    "tesla.cybertruck": (5.683, 2.032, 1.791, 3.635, 2995, 447, 180, 13.3, 2, "electric"),
}
VANS = {
    "ford.ambulance": (6.366, 2.100, 2.431, 4.010, 5000, 224, 150, 15.0, 2, "emergency"),
    "mercedes.sprinter": (5.932, 1.993, 2.640, 3.665, 2300, 120, 160, 13.4, 2, ""),
    "volkswagen.t2": (4.505, 1.720, 1.940, 2.400, 1300, 51, 127, 11.3, 1, ""),
    "volkswagen.t2_2021": (4.505, 1.720, 1.940, 2.400, 1300, 51, 127, 11.3, 2, ""),
}
BUSES = {"mitsubishi.fusorosa": (7.730, 2.065, 2.730, 4.550, 4200, 129, 120, 15.4, 2, "")}
MOTORCYCLES = {
    "harley-davidson.low_rider": (2.350, 0.766, 1.649, 1.630, 375, 64, 180, 5.5, 1, ""),
    "kawasaki.ninja": (2.044, 0.797, 1.523, 1.400, 275, 94, 250, 6.0, 1, ""),
    "vespa.zx125": (1.817, 0.866, 1.590, 1.260, 190, 6.5, 95, 4.0, 1, ""),
    "yamaha.yzf": (2.191, 0.866, 1.530, 1.375, 270, 87, 250, 6.0, 1, ""),
}
BICYCLES = {
    "bh.crossbike": (1.509, 0.866, 1.612, 1.050, 93, 1.0, 45, 4.0, 1, ""),
    "diamondback.century": (1.656, 0.582, 1.620, 1.000, 89, 1.0, 50, 4.0, 1, ""),
    "gazelle.omafiets": (1.843, 0.659, 1.776, 1.130, 98, 0.8, 35, 4.0, 1, ""),
}
TABLES = {"car": CARS, "truck": TRUCKS, "van": VANS, "bus": BUSES, "motorcycle": MOTORCYCLES, "bicycle": BICYCLES}
TWO_WHEELS = ("motorcycle", "bicycle")
TAGS = {"car": 14, "truck": 15, "van": 14, "bus": 16, "motorcycle": 18, "bicycle": 19}
DARK = ("audi.a2", "bmw.grandtourer", "citroen.c3", "jeep.wrangler_rubicon", "mercedes.coupe", "micro.microlino", "mini.cooper_s")
DARK += ("nissan.micra", "nissan.patrol", "seat.leon", "toyota.prius", "carlamotors.carlacola")  # cars of generation 1 without lamps
DOORS = ("dodge.charger_2020", "dodge.charger_police_2020", "ford.crown", "lincoln.mkz_2020", "mercedes.coupe_2020", "mini.cooper_s_2021")
DOORS += ("nissan.patrol_2021", "carlamotors.firetruck", "carlamotors.european_hgv", "tesla.cybertruck", "ford.ambulance")
DOORS += ("mercedes.sprinter", "volkswagen.t2_2021")
COLOURS = ("40,70,120", "180,30,30", "230,230,230", "20,20,20", "120,120,125")
# What nobody publishes, so chosen that the MKZ accelerates and brakes as road tests found (tests/test_simulators_carla_physics.py).
TRANSMITTED = 0.765  # of the engine's power that reaches the road
LAUNCH, LAUNCH_POWER = 3.83, 107.9  # m/s^2 at low speed of a car with so many W/kg; of others as the square root of their power
BRAKES = 1.1106  # of what the tyres hold sideways
SLEEK, BLUNT, FULL, RIDER = 0.27, 0.5, 0.9, 0.4  # drag coefficients; share of width times height; m^2 of a two-wheeler
TURNING = 0.92  # of mass times the distances of both axles from the middle: moment of inertia
WHEELS = {"truck": 0.50, "bus": 0.40, "van": 0.35, "motorcycle": 0.31, "bicycle": 0.34}  # m, radius
GRIPS = {"truck": 0.75, "bus": 0.75, "van": 0.85, "motorcycle": 0.85, "bicycle": 0.70}  # two-wheelers: as far as they can lean


def car_params(row: tuple, base_type: str) -> CarParams:
    """The physics of a row of the tables: what nobody publishes follows from mass, power and measures."""
    width, height, base, mass, kilowatts, top, circle = row[1:8]
    two_wheels = base_type in TWO_WHEELS
    track = 0.0 if two_wheels else width - 0.28
    steer = math.atan2(base, math.sqrt((circle / 2.0) ** 2 - base**2) - track / 2.0)  # the outer front wheel runs along the circle
    grip = GRIPS.get(base_type, CarParams.grip)
    power = TRANSMITTED * 1000.0 * kilowatts
    launch = min(LAUNCH * math.sqrt(1000.0 * kilowatts / mass / LAUNCH_POWER), 0.6 * grip * 9.81)
    return CarParams(
        mass=float(mass),
        inertia=TURNING * mass * base**2 / 4.0,
        front=base / 2.0,
        rear=base / 2.0,
        grip=grip,
        max_steer=steer,
        pull=mass * launch,
        power=power,
        brakes=BRAKES * mass * 9.81 * grip,
        drag=RIDER if two_wheels else (BLUNT if base_type in ("truck", "bus") else SLEEK) * FULL * width * height,
        top_speed=top / 3.6,
        reverse_speed=2.0 if two_wheels else 9.0,
        radius=WHEELS.get(base_type, CarParams.radius),
        two_wheels=float(two_wheels),
    )


def _vehicle(name: str, row: tuple, base_type: str) -> Blueprint:
    length, width, height = row[:3]
    two_wheels = base_type in TWO_WHEELS
    lamps = base_type != "bicycle" and name not in DARK
    attributes = [
        role("autopilot", "scenario", "ego_vehicle"),
        Attribute("sticky_control", BOOL, "true"),
        Attribute("terramechanics", BOOL, "false"),
        fixed("number_of_wheels", INT, "2" if two_wheels else "4"),
        fixed("generation", INT, str(row[8])),
        fixed("base_type", STRING, base_type),
        fixed("special_type", STRING, row[9]),
        fixed("has_dynamic_doors", BOOL, "true" if name in DOORS else "false"),
        fixed("has_lights", BOOL, "true" if lamps else "false"),
        fixed("object_type", STRING, ""),
    ]
    if name != "tesla.cybertruck":  # of bare steel in CARLA as well
        attributes.insert(0, Attribute("color", COLOUR, COLOURS[0], COLOURS))
    if two_wheels or name == "lincoln.mkz_2020":
        attributes.append(Attribute("driver_id", INT, "1", ("1", "2", "3")))
    extent, centre = (length / 2.0, width / 2.0, height / 2.0), (0.0, 0.0, height / 2.0)
    car = car_params(row, base_type)
    return Blueprint(f"vehicle.{name}", Kind.VEHICLE, tuple(attributes), extent, centre, (TAGS[base_type],), car)


def vehicles() -> list[Blueprint]:
    """All of them, by type and name."""
    return [_vehicle(name, row, base_type) for base_type, table in TABLES.items() for name, row in table.items()]
