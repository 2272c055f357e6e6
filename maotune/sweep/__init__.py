"""Sweeps: many runs, with a manifest in a folder and an idempotent process per run, on one machine or many."""
