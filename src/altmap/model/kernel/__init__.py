"""The model of Linux's ``mm/``: the state of page frames, and which of them each step touches.

Functions carry the names of the kernel functions they model. Nothing here knows which memory is
backed: every touch is checked by a callback, which may return a fault. Only this package assigns to
a kernel's state; drivers and adoption call functions from here.
"""
