"""Processors, GPUs and a process' share of them: `devices`."""
