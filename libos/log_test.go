package libos

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/log"
)

// TestEmitter: the Sentry's messages keep their level, but for systrap's about
// programs that compute.
func TestEmitter(t *testing.T) {
	var out bytes.Buffer
	e := emitter{slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	e.Emit(0, log.Warning, time.Now(), "Systrap task goroutine has been waiting on ThreadContext.State futex too long. ThreadContext: %v", 1)
	e.Emit(0, log.Warning, time.Now(), "The context is still running: %v", 1)
	e.Emit(0, log.Debug, time.Now(), "too much")
	require.Empty(t, out.String())
	e.Emit(0, log.Warning, time.Now(), "fault at %#x", 16)
	e.Emit(0, log.Info, time.Now(), "hello")
	require.Contains(t, out.String(), `level=WARN msg="fault at 0x10" from=sentry`)
	require.Contains(t, out.String(), "level=INFO msg=hello")
}
