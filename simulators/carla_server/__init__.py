"""A server that speaks CARLA 0.9.16's protocol, headless and in pure Python, over the embedded world.

The official `carla` client connects to it unmodified. It draws no Unreal images and has no PhysX: what is scored on it is comparable only
with what is scored on it.
"""
