"""Linux's own files about memory: parsed into values, and rendered back.

Each module knows one file (or folder) and opens none: text in, values out, and the reverse.
:mod:`altmap.linux.sysroot` holds the files of a whole machine; :mod:`altmap.linux.observation` is
what they say.
"""
