"""carla.VehicleAckermannControl: two PIDs one above the other, from speed to acceleration to pedals, with CARLA's gains.

Both add to what they gave before, at every tick, as CARLA's do: the speed's PID to the acceleration that is wanted, the acceleration's to
the pedal. So the gains belong to ticks and not to seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from drive.simulators.carla_server.layouts import ServerError, numbers

GAINS = (0.15, 0.0, 0.25, 0.01, 0.0, 0.01)  # CARLA's: speed kp, ki, kd, acceleration kp, ki, kd
FASTER, SLOWER = 3.0, 8.0  # m/s^2 at most where the client does not say
STANDING = 0.1  # m/s
SMOOTH = 0.2  # s over which the measured acceleration is smoothed: one tick's jerk would send the pedal from end to end


@dataclass
class Pid:
    """Of an error that is zero at the start; its output stays in -1..1."""

    kp: float
    ki: float
    kd: float
    total: float = 0.0
    last: float = 0.0

    def run(self, wanted: float, value: float, dt: float) -> float:
        """One step of `dt` s."""
        self.total = min(max(self.total + self.ki * (wanted - value) * dt, -1.0), 1.0)
        out = self.kp * (wanted - value) + self.total - self.kd * (value - self.last) / dt
        self.last = value
        return min(max(out, -1.0), 1.0)


class Ackermann:
    """The controller of one vehicle; it drives once a client has given it a target."""

    def __init__(self) -> None:
        self.target: tuple[float, ...] | None = None  # steer rad, its speed rad/s, speed m/s, acceleration m/s^2, jerk m/s^3
        self.gains: tuple[float, ...] = GAINS
        self._reset()

    def _reset(self) -> None:
        self._speed, self._accel = Pid(*self.gains[:3]), Pid(*self.gains[3:])
        self._wanted = self._pedal = self._before = self._accelerated = 0.0

    def drive(self, target: list | None) -> None:
        """Follow carla.VehicleAckermannControl, or nothing any more. Raises ServerError where it is not finite."""
        if target is None:
            self.target = None
            return
        value = tuple(numbers(target, 5))
        if self.target is None:
            self._reset()
        self.target = value

    def tune(self, gains: list) -> None:
        """Raises ServerError where a gain is negative or not finite."""
        value = tuple(numbers(gains, 6))
        if min(value) < 0.0:
            raise ServerError("gains of an Ackermann controller are not negative")
        self.gains = value
        self._reset()

    def control(self, speed: float, wheel: float, max_steer: float, dt: float) -> tuple[float, float, float, bool]:
        """(throttle, steer, brake, reverse) of this tick at `speed` m/s along the body and with the wheels at `wheel` rad."""
        assert self.target is not None
        steer, rate, wanted, limit, _ = self.target
        if rate > 0.0:
            steer = wheel + min(max(steer - wheel, -rate * dt), rate * dt)
        turn = min(max(steer / max_steer, -1.0), 1.0) if max_steer > 0.0 else 0.0
        backwards = wanted < 0.0
        sign = -1.0 if backwards else 1.0
        wanted, speed = abs(wanted), sign * speed
        self._accelerated += ((speed - self._before) / dt - self._accelerated) * min(dt / SMOOTH, 1.0)
        self._before = speed
        if wanted < STANDING and abs(speed) < STANDING:
            self._wanted = self._pedal = 0.0
            return 0.0, turn, 1.0, backwards
        faster, slower = (abs(limit), abs(limit)) if limit else (FASTER, SLOWER)
        self._wanted = min(max(self._wanted + self._speed.run(wanted, speed, dt), -slower), faster)
        self._pedal = min(max(self._pedal + self._accel.run(self._wanted, self._accelerated, dt), -1.0), 1.0)
        return max(self._pedal, 0.0), turn, max(-self._pedal, 0.0), backwards
