# Makes the libOS use the host in as many ways as a program can: on the files of
# the directory that argument 1 names, on the standard streams, on memory. What
# fails is not of interest; that the instance lives is.
import ctypes, fcntl, mmap, os, select, signal, socket, stat, sys, threading, time

failed = []

def attempt(function, *args, **named):
    try:
        return function(*args, **named)
    except (OSError, ValueError) as e:
        failed.append("%s: %s" % (getattr(function, "__name__", function), e))

def use(fd):
    "Uses an open file as programs do."
    for f in os.fstat, os.isatty, os.fsync, os.fdatasync, os.fstatvfs, os.get_blocking:
        attempt(f, fd)
    attempt(os.lseek, fd, 0, os.SEEK_CUR)
    attempt(os.utime, fd)
    attempt(os.fchmod, fd, 0o600)
    attempt(os.fchown, fd, os.getuid(), os.getgid())
    for command in fcntl.F_GETFL, fcntl.F_GETOWN, 1032:  # F_GETPIPE_SZ
        attempt(fcntl.fcntl, fd, command)
    attempt(fcntl.fcntl, fd, fcntl.F_SETOWN, os.getpid())
    for request in 0x541B, 0x5413, 0x5401, 0x5412:  # FIONREAD, TIOCGWINSZ, TCGETS, TIOCSTI
        attempt(fcntl.ioctl, fd, request, bytes(64))
    attempt(fcntl.flock, fd, fcntl.LOCK_SH)
    attempt(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    attempt(os.posix_fadvise, fd, 0, 0, 0)
    attempt(select.select, [fd], [], [], 0)
    attempt(os.open, "/proc/self/fd/%d" % fd, os.O_RDWR)
    attempt(os.set_blocking, fd, True)
    for protection in mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE:
        m = attempt(mmap.mmap, fd, 4096, prot=protection)
        if m:
            attempt(m.flush)
            m.close()
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        s = socket.socket(fileno=os.dup(fd))
        for option in range(50):
            attempt(s.getsockopt, socket.SOL_SOCKET, option, 8)
        attempt(s.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        for f in s.getsockname, s.getpeername:
            attempt(f)
        attempt(s.recvmsg, 1, 100, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        attempt(s.sendmsg, [b"message\n"])

def change(name):
    "Changes a file by its name."
    for f, *args in (
        (os.chmod, 0o640), (os.chown, 0, 0), (os.chown, 1, 1), (os.utime, (1, 2)), (os.truncate, 9000), (os.setxattr, "user.a", b"b"),
        (os.getxattr, "user.a"), (os.listxattr,), (os.removexattr, "user.a"), (os.statvfs,), (os.stat,), (os.lstat,),
        (os.link, name + "-link"), (os.rename, name + "-renamed"),
    ):
        attempt(f, name, *args)
    for f in os.symlink, os.rename:
        attempt(f, name + "-renamed", name)
    for f in os.readlink, os.listxattr, os.unlink:
        attempt(f, name, **({"follow_symlinks": False} if f is os.listxattr else {}))

def files(directory):
    os.chdir(directory)
    for flags in 0, os.O_SYNC, os.O_DIRECT, os.O_APPEND, os.O_TRUNC, os.O_EXCL, os.O_NOFOLLOW, os.O_PATH:
        fd = attempt(os.open, "file-%x" % flags, os.O_RDWR | os.O_CREAT | flags)
        if fd is None:
            continue
        attempt(os.write, fd, b"x" * 10000)
        attempt(os.pwritev, fd, [b"a", b"bc"], 10)
        attempt(os.pwritev, fd, [b"a", b"bc"], 10, os.RWF_DSYNC)
        attempt(os.preadv, fd, [bytearray(3), bytearray(4)], 0)
        attempt(os.posix_fallocate, fd, 0, 20000)
        attempt(os.sendfile, 1, fd, 0, 2)
        attempt(os.copy_file_range, fd, fd, 10, 0, 100)
        attempt(os.ftruncate, fd, 5000)
        use(fd)
        os.close(fd)
        change("file-%x" % flags)
    for f, *args in (
        (os.mkfifo,), (os.mknod,), (os.mknod, stat.S_IFCHR | 0o600, os.makedev(1, 3)), (os.mkdir,), (os.open, os.O_RDWR | os.O_NONBLOCK),
        (os.open, os.O_DIRECTORY), (os.rmdir,), (os.unlink,), (os.mkfifo,), (os.open, os.O_RDWR | os.O_NONBLOCK), (os.unlink,),
    ):
        attempt(f, "node", *args)
    attempt(os.open, ".", os.O_TMPFILE | os.O_RDWR)
    attempt(os.fsync, os.open(".", os.O_RDONLY))
    s, c = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    for f, *args in (s.bind, "socket"), (s.listen,), (c.connect, "socket"), (os.stat, "socket"), (os.unlink, "socket"):
        attempt(f, *args)
    for entry in os.scandir("/usr/bin"):
        attempt(entry.stat)
    attempt(os.sync)

def memory_and_threads():
    libc = ctypes.CDLL(None, use_errno=True)
    attempt(libc.mlockall, 3), attempt(libc.munlockall)
    for command in 0, 1, 2, 4, 8, 16, 32, 64:
        libc.syscall(324, command, 0)  # membarrier
    m = mmap.mmap(-1, 1 << 22)
    for advice in mmap.MADV_HUGEPAGE, mmap.MADV_DONTNEED, mmap.MADV_WILLNEED, mmap.MADV_FREE, mmap.MADV_DONTFORK:
        attempt(m.madvise, advice)
    attempt(os.ftruncate, os.memfd_create("m"), 1 << 20)
    attempt(os.sched_setaffinity, 0, {0}), attempt(os.nice, 1)
    len(bytearray(100 << 20))
    signal.signal(signal.SIGPROF, lambda *_: None)
    signal.setitimer(signal.ITIMER_PROF, 0.005, 0.005)
    threads = [threading.Thread(target=lambda: sum(i * i for i in range(10**5))) for _ in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    signal.setitimer(signal.ITIMER_PROF, 0)
    for clock in range(12):
        attempt(time.clock_gettime, clock)
    for name in "meminfo", "stat", "self/maps", "self/smaps", "cpuinfo", "net/dev", "self/io", "self/mountinfo", "sys/kernel/random/uuid":
        attempt(lambda: open("/proc/" + name).read())

for fd in 0, 1, 2:
    use(fd)
files(sys.argv[1])
memory_and_threads()
if os.fork() == 0:
    os.execlp("sh", "sh", "-c", "for i in 1 2 3; do true | true & done; wait")
os.wait()
print("\n".join(failed), file=sys.stderr)
print("\ndone")
