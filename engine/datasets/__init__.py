"""Label maps as data sets that annotation tools and trainers import."""
