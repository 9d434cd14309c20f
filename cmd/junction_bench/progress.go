package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// progress says what is being done: on a terminal in one line that is written
// over, elsewhere in a line for each step.
type progress struct {
	to       *os.File
	terminal bool
}

func newProgress(to *os.File) *progress {
	_, err := unix.IoctlGetTermios(int(to.Fd()), unix.TCGETS)
	return &progress{to: to, terminal: err == nil}
}

func (p *progress) show(what string) {
	if p.terminal {
		fmt.Fprintf(p.to, "\r\x1b[K%s", what)
		return
	}
	fmt.Fprintln(p.to, what)
}

// end leaves an empty line for what follows.
func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}
