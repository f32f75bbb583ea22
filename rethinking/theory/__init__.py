"""The paper's theory as programs, on plain arrays.

`expressivity`, with `projection` and `networks`: networks that are built, not trained (section 4).
`complexity`: Rademacher complexity, VC dimension and uniform stability (section 2.2).
`linear`: the solutions of a linear system, and the one that SGD finds (section 5).
"""
