"""Mounts: which file system a path lies on, and whether changes that others make there come as notices.

inotify tells what this machine does to a file. On a network or user-space file system somebody else writes, and
nothing comes. Pure but for `read_mounts`; where the platform has no list of mounts nothing is blind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

MOUNTINFO = "/proc/self/mountinfo"

BLIND = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "coda",
        "davfs",
        "sshfs",
        "lustre",
        "gpfs",
        "beegfs",
        "beegfs_nodev",
        "fhgfs",
        "ceph",
        "glusterfs",
        "orangefs",
        "pvfs2",
        "panfs",
        "wekafs",
        "dvs",
        "gfs2",
        "ocfs2",
        "9p",
        "virtiofs",
        "drvfs",
        "vboxsf",
        "vmhgfs",
        "prl_fs",
        "fakeowner",
        "fuse",
    ]
)
"""Types on which somebody else may write: network, cluster (also those on shared disks), and folders that a host
shows to its virtual machine or container. `fuse.…` are blind too, except `fuseblk`: a disk of this machine."""


class Mount(msgspec.Struct, frozen=True):
    """One mounted file system."""

    point: str
    kind: str
    """Its type as the kernel calls it: ext4, nfs4, fuse.sshfs."""

    @property
    def is_blind(self) -> bool:
        """Whether others can change files there without a notice."""
        return self.kind in BLIND or self.kind.startswith("fuse.")

    def holds(self, path: str) -> bool:
        """Whether an absolute path lies below the mount point, mounts on top of it aside."""
        return path == self.point or path.startswith(os.path.join(self.point, ""))


def parse_mountinfo(text: str) -> list[Mount]:
    """Read /proc/PID/mountinfo; a line that is none is passed over.

    Fields: id, parent, device, root, mount point, options, optional fields up to "-", type, source, options.
    """
    mounts = []
    for line in text.splitlines():
        before, cut, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if cut and len(fields) >= 6 and kinds[0]:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
            mounts.append(Mount(point, kinds[0]))
    return mounts


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that a real, absolute path lies on: the longest point that holds it, of equal ones the latest."""
    holding = [mount for mount in mounts if mount.holds(path)]
    return max(reversed(holding), key=lambda mount: len(mount.point), default=None)


def read_mounts() -> list[Mount]:
    """The mounts of this process now; empty where the platform does not list them."""
    try:
        text = Path(MOUNTINFO).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    return parse_mountinfo(text)
