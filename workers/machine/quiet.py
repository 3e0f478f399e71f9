"""Frameworks are loaded without the notes that they print about themselves.

TensorFlow's libraries write to the process' stderr before any of their own settings is read: which
instructions they were built for, that there is no GPU. So stderr leads elsewhere while a framework
is imported and finds its devices. If that fails, all that was said is printed.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from workers.machine.backends import accelerators, use_backend


def load_framework(backend: str | None = None) -> None:
    """Imports Keras with this backend, or with the one that it chooses itself, and finds the
    devices. Settings of threads and devices would come too late afterwards, so a worker binds its
    share instead before it imports anything (`bind`)."""
    if backend is not None:
        use_backend(backend)
    if "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # for what is said later
    for name in ("tensorflow", "absl", "jax._src.xla_bridge"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with hushed():
        accelerators()


@contextmanager
def hushed() -> Iterator[None]:
    """What is written to the file descriptor of stderr inside is dropped, or, where the block
    raises, printed after it."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            os.dup2(kept, 2)
            said.seek(0)
            os.write(2, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
