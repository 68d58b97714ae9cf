"""The systems of the literature: trained from recipes, measured by one protocol, explained, and compared.

recipe -> cells (training, held out) -> system.fit -> system.predict -> protocol
compare: every system on the same columns, each cell of the table kept as soon as it is measured
"""
