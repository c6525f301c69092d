"""What a tokenizer costs and covers: reconstruction of plans, use of the tokens, and a picture of a codebook."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import box_corners, wrap_angle
from drive.tokenizers.feasibility import Bounds, feasible, feasible_pairs
from drive.tokenizers.interface import PlanTokenizer, motions_of
from drive.tokenizers.kdisk import Box, KDiskTokenizer

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TokenizerReport:
    """Figures of one tokenizer on one set of plans; positions are of the rear axle."""

    plans: int
    tokens_per_plan: float  # mean
    ade: float  # m, mean over all steps of the distance between plan and decode(encode(plan))
    fde: float  # m, the same at the last step
    max_error: float  # m, the worst step
    heading_error_deg: float  # mean over all steps
    coverage: float | None  # share of the plans' single motions that come back within the tolerance where each stands alone; None: none can
    rebuilt: float  # share of the plans' single motions that come back within the tolerance in the rebuilt plan
    vocab_size: int
    tokens_used: int  # distinct tokens that the plans take
    usage: float  # share of the vocabulary that the plans take
    speed_cap: float | None  # m/s, of the fastest plan that the vocabulary has; None: no limit
    infeasible_tokens: int | None  # tokens outside the bounds, 0 or a codebook is broken; None where a token alone is no motion
    infeasible: float  # share of the rebuilt plans' steps outside the bounds on one motion
    infeasible_before: float  # the same of the plans as given
    jumps: float  # share of consecutive steps of the rebuilt plans beyond the acceleration bounds

    def to_dict(self) -> dict[str, float | None]:
        """The figures by name."""
        return asdict(self)

    def line(self) -> str:
        """The figures of reconstruction on one line."""
        errors = f"ADE {100.0 * self.ade:.2f} cm, FDE {100.0 * self.fde:.2f} cm, heading {self.heading_error_deg:.3f} deg"
        shares = f"{100.0 * self.rebuilt:.1f} % of motions rebuilt within tolerance, {100.0 * self.infeasible:.2f} % of steps infeasible"
        return f"{errors}, {shares}, {self.tokens_used:,} of {self.vocab_size:,} tokens used ({self.plans:,} plans)"

    def __str__(self) -> str:
        cap = "none" if self.speed_cap is None else f"{self.speed_cap:.1f} m/s"
        broken = "a token is no motion" if self.infeasible_tokens is None else f"{self.infeasible_tokens}"
        rows = [
            ("plans", f"{self.plans:,} of {self.tokens_per_plan:.4g} tokens"),
            ("reconstruction ADE", f"{100.0 * self.ade:.2f} cm"),
            ("reconstruction FDE", f"{100.0 * self.fde:.2f} cm"),
            ("worst step", f"{100.0 * self.max_error:.2f} cm"),
            ("heading error", f"{self.heading_error_deg:.3f} deg"),
            ("motions within tolerance", "a plan is coded as a whole" if self.coverage is None else f"{100.0 * self.coverage:.1f} %"),
            ("and in the rebuilt plan", f"{100.0 * self.rebuilt:.1f} %"),
            ("tokens used", f"{self.tokens_used:,} of {self.vocab_size:,} ({100.0 * self.usage:.1f} %)"),
            ("speed cap", cap),
            ("infeasible tokens", broken),
            ("infeasible steps", f"{100.0 * self.infeasible:.2f} % ({100.0 * self.infeasible_before:.2f} % of the plans as given)"),
            ("jumps between steps", f"{100.0 * self.jumps:.2f} %"),
        ]
        return "\n".join(f"{name:<26}{value}" for name, value in rows)


def report(tokenizer: PlanTokenizer, plans_ego: Array) -> TokenizerReport:
    """Encode and decode plans (N, T, 3), rear axle, ego frame, `tokenizer.dt` apart. Raises DataError if there are none."""
    plans = np.asarray(plans_ego, float)
    tokens = tokenizer.encode(plans)
    if not plans.size:
        raise DataError(f"a tokenizer report wants at least one plan of at least one step, got shape {plans.shape}")
    rebuilt = tokenizer.decode(tokens)
    error = np.hypot(*np.moveaxis(rebuilt[..., :2] - plans[..., :2], -1, 0))
    motions, found = motions_of(plans), _motions(tokenizer, tokens, rebuilt)
    flat, flat_found = motions.reshape(-1, 3), found.reshape(-1, 3)
    pairs = feasible_pairs(found, tokenizer.dt, tokenizer.bounds)
    used = len(np.unique(np.concatenate(list(tokens))))
    own, alone = tokenizer.token_motions, tokenizer.rebuild_motions(flat)
    return TokenizerReport(
        plans=len(plans),
        tokens_per_plan=float(np.mean([len(row) for row in tokens])),
        ade=float(error.mean()),
        fde=float(error[:, -1].mean()),
        max_error=float(error.max()),
        heading_error_deg=float(np.degrees(np.abs(wrap_angle(rebuilt[..., 2] - plans[..., 2])).mean())),
        coverage=None if alone is None else float((corner_distance(flat, alone) <= tokenizer.tolerance).mean()),
        rebuilt=float((corner_distance(flat, flat_found) <= tokenizer.tolerance).mean()),
        vocab_size=tokenizer.vocab_size,
        tokens_used=used,
        usage=used / tokenizer.vocab_size,
        speed_cap=tokenizer.speed_cap,
        infeasible_tokens=None if own is None else int((~feasible(own, tokenizer.dt, tokenizer.bounds)).sum()),
        infeasible=float((~feasible(flat_found, tokenizer.dt, tokenizer.bounds)).mean()),
        infeasible_before=float((~feasible(flat, tokenizer.dt, tokenizer.bounds)).mean()),
        jumps=float((~pairs).mean()) if pairs.size else 0.0,
    )


def _motions(tokenizer: PlanTokenizer, tokens: NDArray, rebuilt: Array) -> Array:
    """Motions (N, T, 3) of the rebuilt plans: those of the tokens themselves, free of rounding, where a token is a motion."""
    own = tokenizer.token_motions
    return motions_of(rebuilt) if own is None else own[tokens]


def corner_distance(motions: Array, others: Array) -> Array:
    """(N,) m, mean distance of the four corners of a box placed at the ends of motions (N, 3): what the K-disk codebook measures
    by."""
    box = Box()
    a, b = (box_corners(poses, box.length, box.width, box.rear_to_center) for poses in (motions, others))
    return np.hypot(*np.moveaxis(a - b, -1, 0)).mean(-1)


def envelope(bounds: Bounds, top_speed: float, dt: float, points: int = 200) -> Array:
    """Ends (2 * points, 2) m of the sharpest left arcs from standstill to `top_speed` m/s, then of the right ones back."""
    speed = np.linspace(0.0, top_speed, points)
    rate = np.minimum(bounds.max_yaw_rate, bounds.max_curvature * speed)
    rate = np.minimum(rate, bounds.max_lateral_acceleration / np.maximum(speed, 1e-3))
    half = rate * dt / 2.0
    chord = speed * dt * np.sinc(half / np.pi)
    left = np.stack([chord * np.cos(half), chord * np.sin(half)], axis=-1)
    return np.concatenate([left, left[::-1] * np.array([1.0, -1.0])])


def plot_codebook(tokenizer: KDiskTokenizer, path: str | Path) -> Path:
    """Write a PNG of where each token ends, coloured by its heading change, inside the envelope of its bounds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    border = envelope(tokenizer.bounds, tokenizer.speed_cap, tokenizer.dt)
    axes.fill(*border.T, facecolor="#eef1f5", edgecolor="#8a94a3", linewidth=1.0, label="limit of the bounds", zorder=0)
    turn = np.degrees(tokenizer.codebook[:, 2])
    order = np.argsort(np.abs(turn))  # the sharp ones on top, where they are rare
    limit = max(float(np.abs(turn).max()), 1.0)
    colours = {"c": turn[order], "cmap": "coolwarm", "vmin": -limit, "vmax": limit}
    ends = axes.scatter(*tokenizer.codebook[order, :2].T, s=9.0, edgecolors="#3b4252", linewidths=0.2, **colours)
    axes.plot(0.0, 0.0, marker="+", color="black", markersize=9.0, linestyle="none", label="no motion")
    figure.colorbar(ends, ax=axes, label="heading change (deg), left positive")
    axes.set_xlabel(f"forward in {tokenizer.dt:g} s (m)")
    axes.set_ylabel("left (m)")
    axes.set_title(f"{tokenizer.vocab_size:,} action tokens, up to {tokenizer.speed_cap:.0f} m/s, rear axle")
    axes.grid(color="white", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="upper left", frameon=False)
    FigureCanvasAgg(figure)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
