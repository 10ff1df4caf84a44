"""What a kernel does: each named behaviour of a release record, measured from outside.

A probe is a small scenario whose result depends on a behaviour. A behaviour has the value with
which the model predicts what the real kernel showed.
"""

__all__ = ()
