package monitor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// patience is by how much longer a server may be silent that has a thread on a
// processor or waiting for one: on a machine with too much to do it has no
// chance to answer, and another in its place would have none either.
const patience = 8

// runnable tells whether a thread of the process runs or could (proc(5), stat):
// neither stopped nor all asleep.
func runnable(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		// The state follows the name, which is in brackets and may hold any.
		if i := bytes.LastIndexByte(b, ')'); i >= 0 && bytes.HasPrefix(b[i:], []byte(") R")) {
			return true
		}
	}
	return false
}
