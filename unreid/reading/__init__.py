"""Readers of untrusted files.

A reader returns validated content, or raises an error that names the file and the reason. It runs
no code from the file and bounds the memory that the content takes.
"""
