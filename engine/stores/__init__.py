"""Object stores: addresses, listing, and OUT in one of them; obstore is imported when it is used.

S3 and all that speaks it, Google's, Azure's, and single files of a web server.
"""
