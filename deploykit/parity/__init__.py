"""Parity: does an artefact do what its source does?

`metrics` measures, `limits` says what is enough, `golden` makes the inputs, `compare` asks an
artefact both questions (conversion error, quantization noise), `layers` asks value by value, and
`attribute` finds the first stage that diverges from the reference.
"""
