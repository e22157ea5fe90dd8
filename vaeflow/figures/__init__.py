"""Pictures of models: drawn against a protocol, no model is imported here."""
