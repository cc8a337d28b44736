"""Reads a live CPython from outside, through /proc/PID/mem: depth, frames, arguments. Nothing runs in the process that is read."""
