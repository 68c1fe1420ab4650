"""Preference tuning (DPO) of a model or a merge on one GPU: budget, data, training, folding, proof, publishing."""
