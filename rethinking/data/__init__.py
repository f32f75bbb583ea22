"""Where examples come from, and what a network sees of them.

`source` finds TFDS sets on disk, and `prepare` downloads them. `arrays` holds whole sets in memory.
`stream` reads large sets during training, with `records`, `decode` and `pipeline`. `images` crops,
whitens and augments, with `colors`. `shifts` makes further test sets.
"""
