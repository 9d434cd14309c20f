package libos

import "gvisor.dev/gvisor/pkg/sentry/strace"

// installTracing has each system call of programs printed to the log. It must
// run before the kernel starts.
func installTracing() {
	strace.Initialize()
	strace.LogAppDataAllowed = true
	strace.EnableAll(strace.SinkTypeLog)
}
