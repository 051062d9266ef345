"""From nothing to a trained, evaluated and drawn detector: ``make quickstart``, and the set of digits it trains on."""
