"""Open adapters of peft (LoRA and its relatives) on the base model that they were trained on."""
