"""The embedded world, its renderers, OpenDRIVE reading and the towns."""
