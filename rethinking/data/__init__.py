"""Where examples come from, and what a network sees of them.

`source` finds TFDS sets on disk, with `description`, and `prepare` downloads them. `splits` says
what to evaluate. `arrays` holds whole sets in memory, with `formats` and `cache`. `stream` reads
large sets during training, with `decode` and `pipeline`. Both read `records`. `faults` has their
errors. `images` crops, whitens and augments, with `colors`. `vectors` standardizes. `shifts` makes
further test sets.
"""
