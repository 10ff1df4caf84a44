"""Protocols between hosts and guests: messages as bytes, and a host's state machine.

The model and the lab both use them, so that the messages of a modelled driver and of a real one are
compared byte for byte.
"""
