"""Things to put up: CARLA's static.prop.* and its friction trigger; boxes as CARLA 0.9.15 serves them, rounded to centimetres."""

from __future__ import annotations

from drive.simulators.carla_server.blueprints import FLOAT, STRING, Attribute, Blueprint, fixed, role
from drive.simulators.carla_server.layouts import Kind

STATIC, DYNAMIC, SIGN, POLE = 20, 21, 8, 6  # semantic labels
# id: length along x, width along y, height m
PROPS = {
    "advertisement": (1.55, 0.29, 2.44),
    "atm": (0.57, 0.83, 2.19),
    "barbeque": (0.95, 0.50, 1.26),
    "barrel": (0.46, 0.47, 0.81),
    "bench01": (1.54, 0.64, 0.97),
    "bench02": (1.56, 0.54, 0.51),
    "bench03": (1.58, 0.51, 0.51),
    "bike helmet": (0.19, 0.28, 0.17),
    "bikeparking": (1.50, 0.10, 0.85),
    "bin": (0.55, 0.64, 1.06),
    "box01": (0.65, 0.65, 0.69),
    "box02": (0.65, 0.65, 0.65),
    "box03": (0.66, 0.67, 0.65),
    "briefcase": (0.54, 0.18, 0.43),
    "brokentile01": (0.13, 0.18, 0.01),
    "brokentile02": (0.21, 0.15, 0.01),
    "brokentile03": (0.15, 0.14, 0.01),
    "brokentile04": (0.13, 0.13, 0.01),
    "busstop": (3.88, 1.89, 2.74),
    "busstoplb": (1.89, 3.88, 2.74),
    "calibrator": (1.55, 0.69, 0.20),
    "chainbarrier": (1.49, 0.24, 0.89),
    "chainbarrierend": (0.24, 0.24, 0.89),
    "clothcontainer": (1.24, 1.89, 1.81),
    "clothesline": (6.65, 1.12, 2.06),
    "colacan": (0.07, 0.07, 0.11),
    "constructioncone": (0.34, 0.34, 0.59),
    "container": (1.93, 1.01, 1.71),
    "creasedbox01": (0.81, 0.71, 0.12),
    "creasedbox02": (1.63, 0.71, 0.21),
    "creasedbox03": (1.67, 0.71, 0.02),
    "dirtdebris01": (1.86, 1.51, 0.15),
    "dirtdebris02": (1.86, 1.51, 0.15),
    "dirtdebris03": (1.86, 1.51, 0.19),
    "doghouse": (1.08, 1.27, 1.09),
    "foodcart": (2.28, 4.64, 3.57),
    "fountain": (8.40, 8.40, 6.92),
    "garbage01": (0.05, 0.05, 0.09),
    "garbage02": (0.05, 0.05, 0.01),
    "garbage03": (0.06, 0.06, 0.08),
    "garbage04": (0.06, 0.06, 0.07),
    "garbage05": (0.23, 0.23, 0.06),
    "garbage06": (0.37, 0.21, 0.08),
    "gardenlamp": (0.30, 0.28, 0.65),
    "glasscontainer": (1.95, 2.01, 1.79),
    "gnome": (0.37, 0.38, 0.88),
    "guitarcase": (1.24, 0.13, 0.49),
    "haybale": (1.25, 1.19, 1.19),
    "haybalelb": (1.25, 1.19, 1.19),
    "ironplank": (1.45, 1.17, 0.02),
    "kiosk_01": (1.63, 1.65, 3.25),
    "mailbox": (0.53, 0.44, 1.16),
    "maptable": (1.57, 0.62, 1.18),
    "mobile": (0.08, 0.01, 0.17),
    "motorhelmet": (0.20, 0.26, 0.26),
    "omri-0": (0.50, 0.50, 1.00),
    "omri-1": (0.50, 0.50, 1.00),
    "pergola": (5.03, 5.09, 3.54),
    "plantpot01": (1.09, 0.48, 0.56),
    "plantpot02": (1.05, 0.43, 0.49),
    "plantpot03": (1.05, 0.43, 0.49),
    "plantpot04": (4.97, 0.74, 0.12),
    "plantpot05": (0.40, 0.40, 0.28),
    "plantpot06": (1.59, 1.59, 0.85),
    "plantpot07": (0.49, 0.48, 0.56),
    "plantpot08": (0.53, 0.53, 0.49),
    "plasticbag": (0.31, 0.40, 0.55),
    "plasticchair": (0.73, 0.75, 1.27),
    "plastictable": (2.48, 2.48, 2.48),
    "platformgarbage01": (3.63, 1.71, 0.33),
    "purse": (0.16, 0.33, 0.59),
    "shoppingbag": (0.47, 0.24, 0.60),
    "shoppingcart": (0.67, 1.21, 1.08),
    "shoppingtrolley": (0.51, 0.33, 1.09),
    "slide": (0.94, 4.12, 1.98),
    "streetbarrier": (1.21, 0.37, 1.07),
    "streetfountain": (0.29, 0.67, 1.26),
    "streetsign": (1.06, 0.13, 2.15),
    "streetsign01": (2.47, 0.30, 3.88),
    "streetsign04": (1.17, 0.12, 2.77),
    "swing": (4.11, 1.58, 2.57),
    "swingcouch": (1.36, 2.36, 2.25),
    "table": (2.16, 2.15, 0.85),
    "trafficcone01": (0.88, 0.88, 1.13),
    "trafficcone02": (0.46, 0.39, 1.18),
    "trafficwarning": (2.37, 2.87, 3.57),
    "trampoline": (4.13, 4.13, 2.80),
    "trashbag": (0.38, 0.43, 0.70),
    "trashcan01": (0.64, 0.57, 0.85),
    "trashcan02": (0.52, 0.51, 1.05),
    "trashcan03": (0.63, 0.55, 0.93),
    "trashcan04": (0.79, 0.58, 1.02),
    "trashcan05": (0.79, 0.58, 1.02),
    "travelcase": (0.57, 0.33, 1.26),
    "vendingmachine": (0.87, 1.10, 2.11),
    "warningaccident": (1.31, 1.06, 1.86),
    "warningconstruction": (1.31, 1.06, 1.86),
    "wateringcan": (0.07, 0.19, 0.13),
}
LABELS = {"sign": SIGN, "warning": SIGN, "pole": POLE}
SIZES = ((0.3, "tiny"), (1.0, "small"), (2.0, "medium"))  # m up to which the longest side is called so


def props() -> list[Blueprint]:
    """All of them; "static.prop.mesh" is a thing without a box, as this server has no meshes."""
    found = [_prop(name, *box) for name, box in PROPS.items()]
    mesh = (role("prop"), Attribute("mesh_path", STRING, ""), Attribute("mass", FLOAT, "0.0"), Attribute("scale", FLOAT, "1.0"))
    found.append(Blueprint("static.prop.mesh", Kind.PROP, mesh, tags=(DYNAMIC,)))
    reach = tuple(Attribute(f"extent_{axis}", FLOAT, "100.0") for axis in "xyz")  # cm, half of the box
    trigger = (role("friction_trigger"), Attribute("friction", FLOAT, "3.5"), *reach)
    found.append(Blueprint("static.trigger.friction", Kind.OTHER, trigger))
    return found


def _prop(name: str, length: float, width: float, height: float) -> Blueprint:
    longest = max(length, width, height)
    size = next((word for limit, word in SIZES if longest <= limit), "big")
    tag = next((label for part, label in LABELS.items() if part in name), DYNAMIC)
    attributes = (role("prop"), fixed("size", STRING, size))
    extent = (length / 2.0, width / 2.0, height / 2.0)
    return Blueprint(f"static.prop.{name}", Kind.PROP, attributes, extent, (0.0, 0.0, height / 2.0), (tag,))
