"""One module for each way by which memory reaches Linux: the host's half and the guest's."""
