package live

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
)

// tail passes what a policy's process writes on to the log, line by line, and
// keeps the last one: it says why a process did not start.
type tail struct {
	logger *slog.Logger
	mu     sync.Mutex
	// +checklocks:mu
	part []byte
	// +checklocks:mu
	last string
}

// maxLine is how much of a line is kept.
const maxLine = 1 << 10

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part = append(t.part, b...)
	for {
		i := bytes.IndexByte(t.part, '\n')
		if i < 0 && len(t.part) < maxLine {
			return len(b), nil
		}
		if i < 0 {
			i = maxLine - 1
		}
		t.line(strings.TrimSpace(string(t.part[:i])))
		t.part = append(t.part[:0], t.part[i+1:]...)
	}
}

// +checklocks:t.mu
func (t *tail) line(text string) {
	if text == "" || strings.Contains(text, "[DEBUG]") { // go-plugin's own
		return
	}
	t.last = text
	t.logger.Info("policy says", "text", text)
}

func (t *tail) lastLine() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}
