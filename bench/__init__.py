"""Timings and static figures of the kernels. cv3gpu imports nothing of it, and no timing decides a test."""
