"""Which file system a path lies on, read from what kernels really print, and where notices are blind."""

import os
from pathlib import Path

import pytest

from cbmon import mounts
from cbmon.mounts import Mount, mount_of, parse_mountinfo, read_mounts

GPU_BOX = r"""22 27 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
27 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,discard,errors=remount-ro
61 27 0:45 / /home rw,relatime shared:30 - nfs4 filer:/export/home rw,vers=4.2,rsize=1048576,addr=10.0.0.5
62 61 259:3 /scratch /home/ann/scratch rw,noatime shared:31 - xfs /dev/nvme1n1 rw,attr2,inode64
63 27 0:46 / /mnt/with\040blank rw,nosuid,nodev shared:33 master:7 - fuse.sshfs ann@box:/data rw,user_id=1000
64 27 0:47 / /mnt/odd\134name\011tab rw - cifs //server/share rw,vers=3.1.1
65 27 0:48 / /lustre rw,flock - lustre 10.1.1.1@o2ib:/work rw,checksum
66 27 8:17 / /mnt/usb rw,relatime - fuseblk /dev/sdb1 rw,user_id=0,allow_other
67 27 0:50 / /over rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc/passwd", "ext4"),
        ("/", "ext4"),
        ("/home/ann/logs/training.csv", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/ann", "ext4"),
        ("/home/ann/scratch/logs", "xfs"),
        ("/home/ann/scratch", "xfs"),
        ("/home/ann/scratchy", "nfs4"),
        ("/mnt/with blank/logs", "fuse.sshfs"),
        ("/mnt/odd\\name\ttab/x", "cifs"),
        ("/lustre/run1", "lustre"),
        ("/mnt/usb/x", "fuseblk"),
        ("/over/x", "overlay"),
        ("/proc/self", "proc"),
    ],
)
def test_a_path_lies_on_the_longest_mount_point_that_holds_it(path: str, kind: str) -> None:
    mount = mount_of(path, parse_mountinfo(GPU_BOX))
    assert mount is not None
    assert mount.kind == kind


@pytest.mark.parametrize(
    ("kind", "blind"),
    [
        *(
            (kind, True)
            for kind in ("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "9p", "afs")
        ),
        *(
            (kind, True)
            for kind in ("fuse", "fuse.sshfs", "fuse.gcsfuse", "fuse.rclone", "glusterfs", "virtiofs")
        ),
        *(
            (kind, False)
            for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "nfsd", "vfat")
        ),
    ],
)
def test_where_others_can_write_notices_are_blind(kind: str, blind: bool) -> None:
    assert Mount("/", kind).is_blind is blind


def test_of_two_mounts_on_one_point_the_later_one_covers_the_other() -> None:
    table = parse_mountinfo(
        "1 0 8:1 / / rw - ext4 a rw\n2 1 0:1 / /d rw - ext4 b rw\n3 2 0:2 / /d rw - nfs c rw\n"
    )
    assert mount_of("/d/x", table) == Mount("/d", "nfs")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "garbage",
        "1 2 3",
        "1 2 0:1 / /x rw - ",
        "1 2 0:1 / /x rw shared:1",
        "1 2 - ext4 x rw",
        " - \x00 ",
    ],
)
def test_what_is_no_line_of_mountinfo_is_passed_over(text: str) -> None:
    assert parse_mountinfo(text) == []


def test_a_path_without_a_mount_has_none() -> None:
    assert mount_of("/x", []) is None
    assert mount_of("/x", [Mount("/y", "ext4")]) is None


def test_no_list_of_mounts_is_no_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mounts, "MOUNTINFO", str(tmp_path / "absent"))
    assert read_mounts() == []


@pytest.mark.skipif(not os.path.exists(mounts.MOUNTINFO), reason="this platform lists no mounts")
def test_the_mounts_of_this_machine_hold_its_root() -> None:
    mount = mount_of("/", read_mounts())
    assert mount is not None
    assert mount.point == "/"
