"""What every test runs under: one thread per worker, no display and no network hub."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each make two cores slower, not faster
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
