"""Building instructions, training, evaluating and comparing InstructCell."""
