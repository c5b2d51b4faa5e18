"""What a finished run does with single utterances and with words: corrections, attention, space."""
