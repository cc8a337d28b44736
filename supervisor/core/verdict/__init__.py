"""The rules of verdict, a file for each family of evidence, and what they share. ``core.outcome`` asks them in their order."""
