"""The model of Linux's ``mm/``: what the kernel believes about page frames, and what it touches.

Functions carry the names of the kernel functions they model. Nothing here knows what backs memory:
every touch is handed to a judge, which may answer with a fault.
"""
