"""Synthetic traffic: sessions of believable applications and attacks, played into packets, written as a capture.

Hosts talk in sessions (`sessions/`), rows that say who talks to whom, how much and how it ends. `play` turns sessions
into segments with sequence numbers, round trips and losses; `timeline` merges them in time order; `frames` writes them.
A profile (`profiles`) is a mix of sessions and an address plan. Everything follows from profile, size and seed.
"""
