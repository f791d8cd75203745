"""The demo: a generated archive with exact classes, labelled and scored."""
