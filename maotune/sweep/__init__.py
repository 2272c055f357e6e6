"""Many runs: a manifest in a folder, one idempotent process for each, on one machine or many."""
