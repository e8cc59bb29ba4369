"""One self-contained HTML page: sections of views, pictures, explanations, and the text coloured by loss."""
