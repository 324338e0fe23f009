"""The queue itself: pure, synchronous, no clock, no randomness, no I/O. Time is an argument."""
