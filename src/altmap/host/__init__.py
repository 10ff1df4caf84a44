"""The host: its memory read from files, listed, explained, planned for, changed.

Pure modules judge an observation (``listing``, ``blockers``, ``explain``, ``plan``); the few with
effects say so in their first sentence.
"""
