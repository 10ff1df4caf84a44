"""The model: platform, kernel and drivers as page sets, run as a target.

Start with :mod:`altmap.model.machine`.
"""
