"""What a process has to compute with. Read `devices` (processors, GPUs and a process' share of
them), `caches` (where files are kept), then `backends` (the frameworks that Keras computes on)."""
