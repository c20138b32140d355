"""`make bench`: every benchmark in turn."""

from benchmarks import decoder, scoring

decoder.main()
scoring.main()
