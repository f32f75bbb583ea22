"""The kinds of data sets, one file a kind: each describes a set and reads it.

`rethinking.data.source.find` chooses among them by the name of the set.
"""
