"""`make bench`: every benchmark in turn."""

from benchmarks import decoder, photo, scoring, search

if __name__ == "__main__":  # the memory of a search is measured in processes that import this
    for benchmark in (decoder, search, scoring, photo):
        benchmark.main()
