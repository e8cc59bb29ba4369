"""The plan of a scoring pass: tokenized documents and a window policy become windows, rows and parts. No torch."""
