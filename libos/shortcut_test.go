package libos

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestServedCalls: nearly all calls go the short way, and what the task loop
// does beside is not lost: restarts, interrupts, and who has the processor.
func TestServedCalls(t *testing.T) {
	cmd := child(t, Options{Argv: []string{"/usr/bin/python3", "-c", `
import ctypes, errno, os, signal, threading, time
libc = ctypes.CDLL(None, use_errno=True)
r, w = os.pipe()
signal.signal(signal.SIGALRM, lambda *_: None)
def read(restart, later):
    signal.siginterrupt(signal.SIGALRM, not restart)
    threading.Timer(later, os.write, (w, b"x")).start() if later else None
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    n = libc.read(r, ctypes.create_string_buffer(1), 1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return n, n < 0 and errno.errorcode[ctypes.get_errno()]
print(read(False, 0), read(True, 0.3))
os.kill(os.getpid(), signal.SIGSTOP) if os.fork() == 0 else print(os.WIFSTOPPED(os.waitpid(-1, os.WUNTRACED)[1]))
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    for _ in range(10000): os.getppid()
    used = os.times()
    if used.user > 0 and used.system > 0: break
print(used.user > 0, used.system > 0)
`}})
	cmd.Env = append(cmd.Env, countEnv)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "(-1, 'EINTR') (1, False)\nTrue\nTrue True\n")
	number := func(what string) int {
		found := regexp.MustCompile(what + `: (\d+)\n`).FindSubmatch(out)
		require.NotNil(t, found, "%s", out)
		n, err := strconv.Atoi(string(found[1]))
		require.NoError(t, err)
		return n
	}
	calls, served := number("system calls"), number("served")
	require.LessOrEqual(t, served, calls)
	require.Greater(t, served, calls*9/10)
}
