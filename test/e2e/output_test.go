package e2e

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
)

// errEnded says that a program ended before it wrote what was waited for.
var errEnded = errors.New("the program ended")

// output collects what a program writes and lets tests wait for it.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer  // guarded by mu
	changed chan struct{} // guarded by mu; closed at the next write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// Write never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

func (o *output) String() string {
	s, _ := o.snapshot()
	return s
}

func (o *output) snapshot() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String(), o.changed
}

// wait blocks until ok accepts all that was written so far, ended is closed or
// ctx ends.
func (o *output) wait(ctx context.Context, ended <-chan struct{}, ok func(string) bool) error {
	for {
		s, changed := o.snapshot()
		if ok(s) {
			return nil
		}
		select {
		case <-changed:
		case <-ended:
			if ok(o.String()) {
				return nil
			}
			return errEnded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// contains is a condition for wait.
func contains(text string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, text) }
}
