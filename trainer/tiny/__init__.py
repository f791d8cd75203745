"""The making of the shipped `tiny` model. Sources and reasons: engine/weights/tiny.md."""
