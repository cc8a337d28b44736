"""Faults on purpose, and proof that what has to follow does: the stand-in, the course of one drill, and all drills of a brain."""
