"""A live machine: the modelled machine's files as a file system that programs read and write."""
