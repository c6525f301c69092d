"""Planners: constant velocity, IDM, the PDM-style expert, the VLA."""
