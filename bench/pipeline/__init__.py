"""The published code's whole pipeline, written anew, beside `alps label`."""
