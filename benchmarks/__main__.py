"""`make bench`: every benchmark in turn."""

from benchmarks import decoder

decoder.main()
