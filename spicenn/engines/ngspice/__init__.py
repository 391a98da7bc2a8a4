"""ngspice in a process of its own.

``client`` is what other layers use; ``child`` runs in the process; ``protocol`` is
what they say to each other. Importing this package loads neither.
"""
