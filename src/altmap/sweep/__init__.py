"""Many scenarios: a grid of parameters or the requests of a fleet, one flat row for each.

A :mod:`~altmap.sweep.grid` numbers its scenarios; a chunk of numbers goes to a
``concurrent.futures.Executor`` (:mod:`~altmap.sweep.pool`), which returns its rows; they are kept
as one file (:mod:`~altmap.sweep.store`). Scenarios whose rows exist are not run again.
"""
