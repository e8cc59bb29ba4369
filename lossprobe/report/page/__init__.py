"""Parts of the page that `lossprobe report` makes."""
