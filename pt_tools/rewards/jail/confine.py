"""What binds a jail, by system call: namespaces, Landlock, a system-call filter, resource limits, no privileges."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from pathlib import Path

from pt_tools.rewards.jail import seccomp

NOBODY = 65534
MB = 2**20
TMP_BYTES, TMP_FILES = 16 * MB, 512
MAX_PROCESSES, MAX_FILES = 32, 64
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

NEWNS, NEWUSER = 0x00020000, 0x10000000
NEW_PER_RUN = NEWNS | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # + cgroup, uts, ipc, pid, net
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
PIVOT_ROOT, MOUNT_SETATTR = {"x86_64": (155, 442), "aarch64": (41, 442)}.get(os.uname().machine, (-1, -1))
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
AT_RECURSIVE = 0x8000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 47, 4

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_REG, TRUNCATE = 1, 2, 4, 8, 32, 256, 1 << 14
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # by ABI; from 5 on 16 of them

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    """A libc function that returns -1 on failure -> its result. OSError otherwise."""
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = getattr(libc, name)(*arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def python_folders():
    """Where this python and its standard library are."""
    return sorted({os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)})


def mount(source, target, kind, flags, options=None):
    call("mount", os.fsencode(source), os.fsencode(target), kind and kind.encode(), flags, options and options.encode())


# ---- namespaces: the launcher's own root, once; then fresh namespaces for every run


def enter_root():
    """Give this process a root of its own: system folders and python, read-only, and nothing else.

    As root its own rights do; otherwise a user namespace gives them. OSError where the system forbids it.
    """
    try:
        call("unshare", NEWNS)
    except PermissionError:
        if os.geteuid() == 0:  # root of a container: a namespace of its own root would not bind the process limit
            become_nobody()
            call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
        uid, gid = os.geteuid(), os.getegid()
        call("unshare", NEWNS | NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    devices = {name: os.open(name, os.O_PATH) for name in DEVICES}
    root = Path("/tmp")
    folders = {name: os.open(name, os.O_PATH) for name in (*SYSTEM, *python_folders()) if _needed(name)}
    links = {name: os.readlink(name) for name in SYSTEM if os.path.islink(name)}
    mount("jail", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for name, fd in {**folders, **devices}.items():
        _bind(fd, root / name[1:])
    for name, target in links.items():
        (root / name[1:]).symlink_to(target)
    for name in ("tmp", ".old"):
        (root / name).mkdir()
    os.chdir(root)
    call("syscall", PIVOT_ROOT, b".", b".old")
    os.chdir("/")
    call("umount2", b"/.old", 2)  # MNT_DETACH
    os.rmdir("/.old")
    attributes = struct.pack("=4Q", MS_RDONLY | MS_NOSUID, 0, 0, 0)  # MOUNT_ATTR_* have the same values
    call("syscall", MOUNT_SETATTR, -100, b"/", AT_RECURSIVE, attributes, len(attributes))


def _needed(name):
    """A folder that exists, is no link, and lies in no other one that is given anyway."""
    inside = any(name.startswith(other + "/") for other in (*SYSTEM, *python_folders()))
    return os.path.exists(name) and not os.path.islink(name) and not inside


def _bind(fd, target):
    source = f"/proc/self/fd/{fd}"
    if os.path.isdir(source):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(source, target, None, MS_BIND | MS_REC)
    os.close(fd)


def new_namespaces():
    """Fresh namespaces; the next child is process 1 of its own, without any network."""
    call("unshare", NEW_PER_RUN)


def private_tmp():
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("tmp", "/tmp", "tmpfs", flags, f"size={TMP_BYTES},nr_inodes={TMP_FILES},mode=1777")
    os.chdir("/tmp")


def become_nobody():
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def nobody_can_read(path):
    """Whether others may search every folder down to `path` and read it."""
    folders = [Path(path), *Path(path).parents]
    return all(folder.stat().st_mode & 0o5 == 0o5 or folder.stat().st_mode & 0o1 and folder != Path(path)
               for folder in folders)


def own_user_namespace():
    """Count this run's processes by themselves (RLIMIT_NPROC counts by user and namespace); harmless if refused."""
    libc.unshare(NEWUSER)


# ---- bubblewrap: the same namespaces, where the system lets only it make them


def bubblewrap():
    """Its path, from the system's own folders; None if there is none."""
    places = ("/usr/bin/bwrap", "/bin/bwrap", "/usr/local/bin/bwrap")
    return next((path for path in places if os.path.exists(path)), None)


def check_bubblewrap():
    """OSError if it cannot start a jail."""
    if not bubblewrap():
        raise FileNotFoundError("bubblewrap is not installed")
    hidden = [name for name in python_folders() if os.geteuid() == 0 and not nobody_can_read(name)]
    if hidden:  # root would start it as nobody: the limit of processes does not bind root
        raise PermissionError(f"only root can read {hidden[0]}, and a jail runs as nobody")


def bubblewrap_command(package):
    """The command line but for the program; `package` is this package's folder, seen inside as /pt/pt_tools."""
    command = ["bwrap", "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    command += ["--setenv", "PYTHONHASHSEED", "0", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    for name in (*SYSTEM, *python_folders()):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        elif _needed(name):
            command += ["--ro-bind", name, name]
    for name in DEVICES:
        command += ["--dev-bind", name, name]
    command += ["--ro-bind", package, "/pt/pt_tools", "--size", str(TMP_BYTES), "--perms", "1777", "--tmpfs", "/tmp"]
    return [*command, "--chdir", "/tmp", "--remount-ro", "/"]


# ---- Landlock: the file system, where namespaces are forbidden


def landlock(writable):
    """Read only system folders and python, write only plain files in `writable`; no TCP. OSError if it cannot."""
    abi = call("syscall", CREATE_RULESET, None, 0, 1)
    handled = struct.pack("=3Q", FILE_RIGHTS.get(abi, (1 << 16) - 1), 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = call("syscall", CREATE_RULESET, handled, size, 0)
    for name in {os.path.realpath(name) for name in (*SYSTEM, *python_folders()) if os.path.exists(name)}:
        _allow(ruleset, name, READ_FILE | EXECUTE | READ_DIR if os.path.isdir(name) else READ_FILE)
    for name in DEVICES:
        _allow(ruleset, name, READ_FILE | WRITE_FILE)
    writing = READ_FILE | READ_DIR | WRITE_FILE | REMOVE_FILE | MAKE_REG | (TRUNCATE if abi >= 3 else 0)
    _allow(ruleset, writable, writing)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("syscall", RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset, name, rights):
    fd = os.open(name, os.O_PATH)
    call("syscall", ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, fd), 0)
    os.close(fd)


# ---- limits and privileges


def limit(memory_mb, cpu_s, processes=True):
    """Resource limits of one process of a jail."""
    limits = {
        resource.RLIMIT_AS: memory_mb * MB, resource.RLIMIT_CPU: cpu_s, resource.RLIMIT_FSIZE: TMP_BYTES,
        resource.RLIMIT_NOFILE: MAX_FILES, resource.RLIMIT_CORE: 0, resource.RLIMIT_MEMLOCK: 64 * 1024,
        resource.RLIMIT_MSGQUEUE: 0, resource.RLIMIT_SIGPENDING: 128,
    }  # fmt: skip
    if processes:
        limits[resource.RLIMIT_NPROC] = MAX_PROCESSES
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def no_privileges():
    """Drop every capability for good."""
    capability = 0
    while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:  # until there is none of that number
        capability += 1
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    call("capset", header, nothing)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent():
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)


def adopt_orphans():
    """Make this process the parent of all descendants whose parent dies."""
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def filter_calls(alone):
    """Install the system-call filter. OSError if the kernel or the machine has none."""
    code = ctypes.create_string_buffer(seccomp.program(alone, os.getpid()))
    pointer = struct.pack("@HxxxxxxQ", (len(code) - 1) // 8, ctypes.addressof(code))
    call("prctl", PR_SET_SECCOMP, 2, pointer, 0, 0)
