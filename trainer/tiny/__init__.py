"""The making of the shipped `tiny` model. Sources and reasons: engine/models/weights/tiny.md."""
