"""The fault campaign: things are broken on purpose and by chance, and what comes of it is counted.

`make faults` runs it; `docs/reliability.md` has its figures.
"""
