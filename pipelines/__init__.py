"""One thin command per stage: parse arguments, call the library, write through artifacts."""
