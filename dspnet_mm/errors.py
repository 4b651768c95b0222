# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Errors that tools report in one line."""


class InputError(ValueError):
    """Something a user gave cannot be used.

    The message is one line: what was found, what is allowed, what to do.
    Command-line tools print it and exit with status 2.
    """


class VerificationError(RuntimeError):
    """What was made is not what it should be, and was not written.

    Command-line tools print the message and exit with status 1.
    """
