"""From classes to label maps: painting, its journal, the files, their colours."""
