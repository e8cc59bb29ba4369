"""What a gate is made of: its settings, what each check measures, and the verdicts."""
