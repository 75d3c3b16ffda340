"""The methods there are: their cards and settings, read from the sources without running them.

``python -m runner.methods`` lists them, ``python -m runner.methods lion`` prints a card.
"""
