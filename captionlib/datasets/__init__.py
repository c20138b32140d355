"""Data sets: downloaded, verified, unpacked."""
