"""Locks of files, which some network file systems do not have."""

import errno

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system without locks: NFS without its lock service, Lustre without flock."""
HELD = (errno.EACCES, errno.EAGAIN)
"""Errors of a lock that another process has; POSIX allows both."""
