"""Scenes as a stage needs them: prompts, tokenised teacher plans, reasoning, and the scenes of the PDM score, each made once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from drive.core.errors import DataError
from drive.core.seeds import numpy_rng
from drive.core.types import Scenario
from drive.datasets.logs import STOPPED
from drive.metrics.pdms import PdmScene
from drive.planners.vla.encode import EncodedPrompt
from drive.planners.vla.policy import VlaPolicy

SETS_OFF = 2.0  # m of plan of a standing car that sets off
CACHE_BYTES = 4 << 30  # of frames, or of features, kept in memory; beyond it they are read again


class SceneStore:
    """A dataset of Scenarios seen through one policy."""

    def __init__(self, dataset: Sequence[Scenario], policy: VlaPolicy, limit: int = 0, bare: bool = False) -> None:
        """bare: keep the prompts `without_motion` too."""
        self.dataset = dataset
        self.policy = policy
        self.bare = bare
        self.count = min(len(dataset), limit) if limit else len(dataset)
        if not self.count:
            raise DataError("the dataset holds no scene: check dataset.root and the split")
        self._prompts: dict[int, EncodedPrompt] = {}
        self._pdm: dict[int, PdmScene] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return self.count

    def prompt(self, index: int) -> EncodedPrompt:
        """The planning prompt of scene `index`."""
        if index in self._prompts:
            return self._lighter(self._prompts[index])
        prompt = self.policy.encoder.encode_observation(self.dataset[index].observation(), self.bare)
        if self._bytes < CACHE_BYTES:
            self._bytes += prompt.images.nbytes
            self._prompts[index] = prompt
        return prompt

    def _lighter(self, prompt: EncodedPrompt) -> EncodedPrompt:
        """A prompt whose features are kept, without its frames: from here on only their shape is read."""
        if prompt.features is not None and any(prompt.images.strides):
            self._bytes += prompt.features.nbytes - prompt.images.nbytes
            prompt.images = np.broadcast_to(np.uint8(0), prompt.images.shape)
        return prompt

    def pdm_scene(self, index: int) -> PdmScene:
        """The ground truth that scores plans of scene `index`."""
        if index not in self._pdm:
            self._pdm[index] = PdmScene.from_scenario(self.dataset[index])
        return self._pdm[index]


class TeacherStore(SceneStore):
    """Scenes whose teacher plans are tokenised by the policy's codebook."""

    def __init__(self, dataset: Sequence[Scenario], policy: VlaPolicy, limit: int = 0, bare: bool = False) -> None:
        super().__init__(dataset, policy, limit, bare)
        poses, self.reasoning, self.complex, standing = [], [], [], []
        steps = policy.grammar.plan_tokens
        for i in tqdm(range(self.count), desc="reading scenes", dynamic_ncols=True):
            scenario = dataset[i]
            if scenario.teacher is None:
                raise DataError(f"scenario {scenario.id} has no teacher plan to imitate: SFT needs one for every scene")
            if len(scenario.teacher.poses) < steps or abs(scenario.teacher.dt - policy.codebook.dt) > 1e-9:
                raise DataError(
                    f"scenario {scenario.id}: a teacher plan of {len(scenario.teacher.poses)} poses, {scenario.teacher.dt} s apart, does not "
                    f"make {steps} tokens of {policy.codebook.dt} s: fit a codebook with that dt"
                )
            poses.append(scenario.teacher.poses[:steps])
            self.reasoning.append(scenario.reasoning)
            standing.append(scenario.ego.state(scenario.present).speed < STOPPED)
            self.complex.append(bool(scenario.notes.get("complex", bool(scenario.reasoning))))
            self.prompt(i)
        self.poses: NDArray[np.float64] = np.stack(poses)  # (N, T, 3) ego frame
        self.actions: NDArray[np.int64] = policy.codebook.encode(self.poses)  # (N, T)
        self.setting_off: NDArray[np.bool_] = np.array(standing) & (self.poses[:, -1, 0] > SETS_OFF)  # (N,)

    def reasoning_or_none(self, index: int, epoch: int, seed: int, share_complex: float, share_simple: float) -> str | None:
        """The reasoning to imitate this epoch, or None for a fast answer; complex scenes think more often."""
        if not self.reasoning[index]:
            return None
        share = share_complex if self.complex[index] else share_simple
        return self.reasoning[index] if numpy_rng(seed, "slow", epoch, index).random() < share else None
