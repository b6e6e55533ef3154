"""Malformed input for all code that reads external data: ``python -m tests.fuzz --frames 1000000``.

Valid messages, records, checkpoints and configurations are damaged, bit by bit and field by field, and given to
the module that reads them.  It must accept them or refuse them with its own class of error.  Everything else is
a bug: another exception, a case that takes too long, memory that grows.  Each case depends only on the seed and
its number, so ``--target wire --case 123`` repeats a case.

docs/fuzzing.md lists the bugs that were found.
"""
