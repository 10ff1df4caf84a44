"""Traces on disk: exports, recordings of real kernels, and what is read back from them."""
