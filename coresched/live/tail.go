package live

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"junction/coresched/plugin"
)

// tail passes what a policy's process writes on to the log, line by line, and
// keeps the first and the last one: they say why a process did not start.
type tail struct {
	logger *slog.Logger
	mu     sync.Mutex
	// +checklocks:mu
	part []byte
	// +checklocks:mu
	first, last string
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
	if t.first == "" {
		t.first = text
	}
	t.last = text
	t.logger.Info("policy says", "text", text)
}

// explain adds what a program said to the reason that it serves no policy. Our
// own says why by itself.
func (t *tail) explain(program string, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.first == "":
		return err
	case !strings.Contains(program, "/") && errors.Is(err, plugin.ErrNoPolicy):
		return fmt.Errorf("policy %s: %s", program, t.last)
	}
	return fmt.Errorf("%w; the first it printed was %q", err, t.first)
}
