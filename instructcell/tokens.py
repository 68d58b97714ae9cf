"""The special tokens of InstructCell. No other module spells them."""

CELL_TOKEN = "<CELL>"
SIGNAL_TOKEN = "<SIGNAL>"
SPECIAL_TOKENS = (CELL_TOKEN, SIGNAL_TOKEN)
