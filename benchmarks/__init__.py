"""What vaeflow takes for its work, beside other libraries and beside the plain nets of the same sizes."""
