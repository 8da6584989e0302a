"""Which Ethos-U NPUs a file can be compiled for.

vela (package ``ethos-u-vela``) compiles an int8 .tflite file for an NPU of Arm's Ethos-U family:
what the NPU takes becomes command streams, each one custom operator; what it does not take is left
to the microcontroller's CPU, and the data go back and forth.
"""

from __future__ import annotations

RUNNER = "ethos-u"
#: As vela's ``--accelerator-config`` takes them; the number is that of multipliers.
ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
#: What a verdict is given for: a middle one of each generation.
USUAL = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")
