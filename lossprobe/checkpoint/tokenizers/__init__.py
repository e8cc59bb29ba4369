"""Turn text into token ids, with the bytes of the text that each token covers."""
