"""Structure-aware fuzzing of every format that deploykit reads: ``make fuzz SECONDS=120``."""
