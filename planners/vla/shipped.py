"""The checkpoints that come with drive."""

from pathlib import Path

from drive.core.errors import CheckpointError

NAMES = ("tiny-drive", "tiny-carla")  # that plan; as values of checkpoint=
WEIGHTS = Path(__file__).parent / "weights"


def shipped(name: str) -> Path:
    """Folder of "tiny-base" (pictures and text, no actions), "tiny-drive" (after SFT and GRPO) or "tiny-carla" (after SFT on closed-loop drives)."""
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"the shipped checkpoint {name} is not in this copy of drive ({folder}): install it again, or name one with checkpoint=")
    return folder
