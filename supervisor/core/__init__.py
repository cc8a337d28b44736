"""Decisions: functions over plain data. No I/O, no clock, no randomness, no logging."""
