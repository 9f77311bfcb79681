"""Becomes the process of one seed: ``python seed_process.py LOG WORD...`` runs the command in the words.

This file is run as a script and uses only the standard library, since importing the package takes seconds.
"""

import ctypes
import os
import shlex
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def main(log: str, *words: str) -> None:
    """Writes all output to a log, and replaces this process by the command.

    Args:
        log: The path of the log. What earlier starts have written stays.
        words: The command.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        # If the study or the worker of Ray is killed, its fits must end too: they hold the locks of their folders.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was killed before that took effect
            sys.exit(1)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.write(1, f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} $ {shlex.join(words)}\n".encode())
    # One thread, so that results do not depend on how many seeds train at once.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTHONUNBUFFERED"] = "1"
    try:
        os.execvp(words[0], words)
    except OSError as error:
        os.write(2, f"{words[0]} cannot be started: {error.strerror}.\n".encode())
        sys.exit(127)


if __name__ == "__main__":
    main(*sys.argv[1:])
