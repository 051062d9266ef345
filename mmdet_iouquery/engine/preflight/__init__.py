"""What would end a run later, found before it starts: config, data pipeline, model, metrics, checkpoint, memory."""
