"""Processes that run jobs. Read `worker` (one process), `cluster` (Ray), then `pool`."""
