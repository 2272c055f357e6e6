"""Tune, resume and score learners; knows the contract and no method."""
