"""Polygons of label maps, for maps and data bases: GeoPackage, GeoParquet, FlatGeobuf, GeoJSON."""
