"""The VLA: one language model that plans with or without reasoning (AutoVLA, arXiv 2506.13757)."""
