"""Many scenarios: a grid of parameters or the requests of a fleet, one flat row for each.

A :mod:`~altmap.sweep.grid` numbers its scenarios; a chunk of numbers goes to whatever
``concurrent.futures.Executor`` there is (:mod:`~altmap.sweep.pool`), comes back as rows, and is
kept as one file (:mod:`~altmap.sweep.store`). What is kept is not done again.
"""
