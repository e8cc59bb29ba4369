"""What an option takes and means, declared once: the command line, the audit file and Python are made from it."""
