"""The one expensive pass: tokens through the model, logits to statistics."""
