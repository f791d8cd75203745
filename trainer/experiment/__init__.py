"""Does pre-training on pseudo-labels help? One command that answers, with controls and spread."""
