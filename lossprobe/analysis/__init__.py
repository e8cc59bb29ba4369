"""One question a file: a run in, one frozen result out. No torch, no click, no matplotlib."""
