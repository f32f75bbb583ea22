"""Where examples come from, and what a network sees of them.

`source` finds a set by its name. `sources` has a file for each kind of set, with the interface of
`description`. `prepare` downloads TFDS sets. `splits` says what to evaluate. `arrays` holds whole
sets in memory, with `encoded`, `formats` and `cache`. `stream` reads large sets during training,
with `records`, `decode` and `pipeline`. `faults` has their errors. `images` crops, whitens and
augments, with `colors`. `vectors` standardizes. `shifts` makes further test sets.
"""
