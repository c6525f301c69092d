"""The two checkpoints that come with drive."""

from pathlib import Path

from drive.core.errors import CheckpointError

WEIGHTS = Path(__file__).parent / "weights"


def shipped(name: str) -> Path:
    """Folder of "tiny-base" (pictures and text, no actions) or "tiny-drive" (after SFT and GRPO)."""
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"the shipped checkpoint {name} is not in this copy of drive ({folder}): install it again, or name one with checkpoint=")
    return folder
