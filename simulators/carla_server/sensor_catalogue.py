"""The sensors that this server can spawn, with the attributes and defaults of CARLA's sensor reference."""

from __future__ import annotations

from drive.simulators.carla_server.blueprints import BOOL, FLOAT, INT, STRING, Attribute, Blueprint, role
from drive.simulators.carla_server.layouts import Kind

ROLES = ("front", "back", "left", "right", "front_left", "front_right", "back_left", "back_right")


def _floats(**values: str) -> tuple[Attribute, ...]:
    """Attributes of numbers, with their defaults."""
    return tuple(Attribute(name, FLOAT, value) for name, value in values.items())


TICK = Attribute("sensor_tick", FLOAT, "0.0")
SEED = Attribute("noise_seed", INT, "0")
CAMERA = (  # those of the lens are taken and not heeded
    Attribute("image_size_x", INT, "800"),
    Attribute("image_size_y", INT, "600"),
    *_floats(fov="90.0", lens_circle_falloff="5.0", lens_circle_multiplier="0.0", lens_k="-1.0", lens_kcube="0.0"),
    *_floats(lens_x_size="0.08", lens_y_size="0.08"),
    TICK,
)
RGB = (  # taken and not heeded: the camera has no film
    Attribute("enable_postprocess_effects", BOOL, "true"),
    Attribute("exposure_mode", STRING, "histogram", ("manual", "histogram")),
    *_floats(gamma="2.2", shutter_speed="200.0", iso="100.0", fstop="1.4", exposure_compensation="0.0"),
    *_floats(motion_blur_intensity="0.45", motion_blur_max_distortion="0.35", motion_blur_min_object_screen_size="0.1"),
    *_floats(lens_flare_intensity="0.1", bloom_intensity="0.675", exposure_min_bright="10.0", exposure_max_bright="12.0"),
    *_floats(exposure_speed_up="3.0", exposure_speed_down="1.0", calibration_constant="16.0", focal_distance="1000.0"),
    *_floats(min_fstop="1.2", blur_amount="1.0", blur_radius="0.0", slope="0.88", toe="0.55", shoulder="0.26"),
    *_floats(black_clip="0.0", white_clip="0.04", temp="6500.0", tint="0.0"),
    *_floats(chromatic_aberration_intensity="0.0", chromatic_aberration_offset="0.0"),
    Attribute("blade_count", INT, "5"),
)
SCAN = (
    Attribute("channels", INT, "32"),
    Attribute("points_per_second", INT, "56000"),
    *_floats(range="10.0", rotation_frequency="10.0", upper_fov="10.0", lower_fov="-30.0", horizontal_fov="360.0"),
    TICK,
)
LOSSES = (
    *_floats(atmosphere_attenuation_rate="0.004", dropoff_general_rate="0.45", dropoff_intensity_limit="0.8"),
    *_floats(dropoff_zero_intensity="0.4", noise_stddev="0.0"),
    SEED,
)
GNSS = (
    TICK,
    SEED,
    *_floats(noise_lat_stddev="0.0", noise_lon_stddev="0.0", noise_alt_stddev="0.0"),
    *_floats(noise_lat_bias="0.0", noise_lon_bias="0.0", noise_alt_bias="0.0"),
)
IMU = (
    TICK,
    SEED,
    *_floats(noise_accel_stddev_x="0.0", noise_accel_stddev_y="0.0", noise_accel_stddev_z="0.0"),
    *_floats(noise_gyro_stddev_x="0.0", noise_gyro_stddev_y="0.0", noise_gyro_stddev_z="0.0"),
    *_floats(noise_gyro_bias_x="0.0", noise_gyro_bias_y="0.0", noise_gyro_bias_z="0.0"),
)
RADAR = (TICK, Attribute("points_per_second", INT, "1500"), *_floats(horizontal_fov="30.0", vertical_fov="30.0", range="100.0"))
OBSTACLE = (
    TICK,
    *_floats(distance="5.0", hit_radius="0.5"),
    Attribute("only_dynamics", BOOL, "false"),
    Attribute("debug_linetrace", BOOL, "false"),
)


def _sensor(type_id: str, *attributes: Attribute) -> Blueprint:
    return Blueprint(type_id, Kind.SENSOR, (role(*ROLES), *attributes))


def sensors() -> list[Blueprint]:
    """All of them."""
    return [
        _sensor("sensor.camera.rgb", *CAMERA, *RGB),
        _sensor("sensor.camera.depth", *CAMERA),
        _sensor("sensor.camera.semantic_segmentation", *CAMERA),
        _sensor("sensor.camera.instance_segmentation", *CAMERA),
        _sensor("sensor.other.collision"),
        _sensor("sensor.other.lane_invasion"),
        _sensor("sensor.other.gnss", *GNSS),
        _sensor("sensor.other.imu", *IMU),
        _sensor("sensor.other.obstacle", *OBSTACLE),
        _sensor("sensor.other.radar", *RADAR),
        _sensor("sensor.lidar.ray_cast", *SCAN, *LOSSES),
        _sensor("sensor.lidar.ray_cast_semantic", *SCAN),
    ]
