"""The system-call filter of a jail, as a classic BPF program for seccomp(2).

What is refused gets EPERM (calls newer than the table ENOSYS, so that libraries fall back). `alone` is for a jail
without namespaces: it may start no process, signal none, and change no file's mode, owner, times or attributes, which
Landlock does not guard.
"""

from __future__ import annotations

import errno
import platform
import struct
from functools import cache

# x86_64, aarch64 (None: the machine has no such call)
ALWAYS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "userfaultfd": (323, 282), "bpf": (321, 280), "perf_event_open": (298, 241), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "setns": (308, 268), "unshare": (272, 97), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None),
    "quotactl": (179, 60), "lookup_dcookie": (212, 18), "move_pages": (279, 239), "migrate_pages": (256, 238),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "syslog": (103, 116), "vhangup": (153, 58),
    "personality": (135, 92), "modify_ldt": (154, None), "uselib": (134, None), "ustat": (136, None),
    "sysfs": (139, None), "_sysctl": (156, None), "socket": (41, 198), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
    "mq_unlink": (241, 181), "memfd_create": (319, 279), "mknod": (133, None), "mknodat": (259, 33),
    "remap_file_pages": (216, 234), "io_setup": (206, 0), "nfsservctl": (180, 42),
    "connect": (42, 203), "bind": (49, 200),
}  # fmt: skip
ALONE = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "truncate": (76, 45), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274), "inotify_init": (253, None), "inotify_init1": (294, 26),
}  # fmt: skip
SOCKETPAIR, PRCTL = (53, 199), (157, 167)
CLONE, KILL, TGKILL, FCNTL, IOCTL, PRLIMIT = (56, 220), (62, 129), (234, 131), (72, 25), (16, 29), (302, 261)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*
COMMON = 424  # from here on the numbers are the same everywhere
NEWER_ALLOWED = (436, 437, 439, 441, 449)  # close_range, openat2, faccessat2, epoll_pwait2, futex_waitv
NAMESPACES = 0x7E020000  # CLONE_NEWNS|NEWCGROUP|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET
THREAD = 0x00010000
AF_UNIX, DATAGRAMS = 1, 2  # SOCK_DGRAM and SOCK_RAW have this bit: such a socket may send to others than its pair
SET_PDEATHSIG = 1  # prctl: who dies with its parent stays so
OWNERS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: the kernel would signal for us
DEVICES = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL_PROCESS, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
ARGUMENTS = 16  # offset of args[0] in struct seccomp_data; the low half comes first on both machines


def program(alone, pid):
    """The filter's bytes (struct sock_filter[]) for this machine; process `pid` is the one that it will bind. OSError
    where no table is known."""
    if platform.machine() not in MACHINES:
        raise OSError(f"no system-call table for {platform.machine()}")
    column, arch = MACHINES[platform.machine()]
    own = _own(column, pid) if alone else []
    return _common(alone, column, arch) + _packed([*own, (RETURN, 0, 0, ALLOW)])


@cache
def _common(alone, column, arch):
    """The lines that are the same for all processes."""
    refused, missing = REFUSE | errno.EPERM, REFUSE | errno.ENOSYS
    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (RETURN, 0, 0, KILL_PROCESS), (LOAD, 0, 0, 0)]
    for number in NEWER_ALLOWED:
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    lines += [(AT_LEAST, 0, 1, COMMON), (RETURN, 0, 0, missing)]  # clone3, io_uring_*, pidfd_*, x32 calls, the unknown
    for name in (*ALWAYS, *ALONE) if alone else ALWAYS:
        number = {**ALWAYS, **ALONE}[name][column]
        if number is not None:
            lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, refused)]
    lines += _argument(CLONE[column], 0, [(ANY_BIT, 0, 1, NAMESPACES), (RETURN, 0, 0, refused)])
    lines += _argument(SOCKETPAIR[column], 0, [(EQUAL, 1, 0, AF_UNIX), (RETURN, 0, 0, refused)])
    lines += _argument(SOCKETPAIR[column], 1, [(ANY_BIT, 0, 1, DATAGRAMS), (RETURN, 0, 0, refused)])
    for call, index, values in ((FCNTL, 1, OWNERS), (IOCTL, 1, DEVICES), (PRCTL, 0, [SET_PDEATHSIG])):
        tests = [line for value in values for line in ((EQUAL, 0, 1, value), (RETURN, 0, 0, refused))]
        lines += _argument(call[column], index, tests)
    return _packed(lines)


def _own(column, pid):
    """No new process, no signal to another one, no limits of another one."""
    refused = (RETURN, 0, 0, REFUSE | errno.EPERM)
    lines = _argument(CLONE[column], 0, [(ANY_BIT, 1, 0, THREAD), refused])
    for call in (KILL, TGKILL):
        lines += _argument(call[column], 0, [(EQUAL, 1, 0, pid), refused])
    return lines + _argument(PRLIMIT[column], 0, [(EQUAL, 2, 0, 0), (EQUAL, 1, 0, pid), refused])


def _packed(lines):
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def _argument(number, index, tests):
    """`tests` on the low half of one argument, for one call only."""
    body = [(LOAD, 0, 0, ARGUMENTS + 8 * index), *tests, (LOAD, 0, 0, 0)]
    return [(EQUAL, 0, len(body), number), *body]
