"""Experiments on the model: the claims of the 2018 discussion, and known bugs."""
