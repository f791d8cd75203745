"""What every room needs: errors, progress, devices, whole files, digests."""
