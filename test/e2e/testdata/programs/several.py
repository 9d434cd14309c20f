"""Threads, processes by fork and pipes to many children, hashing all the while."""
import hashlib
import multiprocessing
import subprocess
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def digest(n):
    return hashlib.sha256(b"%d" % n * 100_000).hexdigest()


def summary(parts):
    return hashlib.md5("".join(parts).encode()).hexdigest()


def talk(n):
    command = ["sh", "-c", f"cat | tr a-z A-Z; exit {n}"]
    p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = p.communicate(b"hello" * 50_000)
    return f"{hashlib.md5(out).hexdigest()} {p.returncode}"


def generations(n):
    """A chain of processes, each the child of the one before."""
    if n == 0:
        return 0
    with multiprocessing.get_context("fork").Pool(1, initializer=_undaemon) as pool:
        return 1 + pool.apply(generations, (n - 1,))


def _undaemon():
    multiprocessing.process.current_process()._config["daemon"] = False


if __name__ == "__main__":
    with ThreadPoolExecutor(16) as threads:
        print("threads", summary(threads.map(digest, range(100))))
    with ProcessPoolExecutor(4) as processes:
        print("processes", summary(processes.map(digest, range(40))))
    with ThreadPoolExecutor(10) as threads:
        print("children", *threads.map(talk, range(10)), sep="\n")
    print("generations", generations(4))
