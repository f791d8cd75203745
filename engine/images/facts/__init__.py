"""What a file says of itself: its bands, its validity, its orientation; and that in words."""
