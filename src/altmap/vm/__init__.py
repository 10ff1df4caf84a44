"""Definitions of virtual machines: what a guest sees, what growing costs, what comes back."""
