"""The limit on the files that a process may hold open at once.

A set of ImageNet's size has more than a thousand files, and all of them stay open while its images
are read. The usual limit is 1,024. The system has two limits: a soft one, which holds, and a hard
one, up to which a process may raise the soft one. Worker processes inherit both.
"""

import contextlib
import resource

from rethinking.errors import InputError

# Files for everything else: libraries, checkpoints, logs, and the memory that processes share.
OTHERS = 200


def allow(num: int, name: str) -> None:
    """Raises the soft limit to the hard one. Then `num` files of the set `name` can stay open.

    Raises InputError if the hard limit is too low for them.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems name a hard limit that they do not allow.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = num + OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise InputError(
            f"{name} has {num:,} files, which stay open while its images are read. With "
            f"{OTHERS} others that makes {needed:,}, but this process may open only {soft:,}. "
            f"Raise the limit in the shell that starts the run: ulimit -n {needed}. If the system "
            f"refuses that, an administrator allows it by a line `* hard nofile {needed}` in "
            "/etc/security/limits.conf. A container needs the option "
            f"--ulimit nofile={needed}:{needed}."
        )
