"""How boards are, as they tell it themselves, and where to see it."""
