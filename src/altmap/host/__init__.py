"""A machine of one's own, as its files show it: listed, explained, planned for, changed.

Pure modules judge an observation (``listing``, ``blockers``, ``explain``, ``plan``); the few with
effects say so in their first sentence.
"""
