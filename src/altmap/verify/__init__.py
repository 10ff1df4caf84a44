"""Scenarios on the model and on a real kernel, compared."""
