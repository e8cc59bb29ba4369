"""What each check measures, and the verdicts."""
