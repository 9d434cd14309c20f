package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netns"
)

// TB is what ForTest needs of testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// ForTest makes a lab for a test. When the test ends the lab is closed; if a
// process, namespace, link, thread or file of it is still there, the test fails.
func ForTest(t TB, o Options) *Lab {
	t.Helper()
	l, err := New(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	watched, err := l.watch()
	if err != nil {
		t.Fatalf("%v", errors.Join(err, l.Close()))
	}
	t.Cleanup(func() {
		t.Helper()
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
		for _, what := range l.leftovers(watched) {
			t.Errorf("left behind by lab %s: %s", l.Name(), what)
		}
	})
	return l
}

// watch returns handles of the lab's namespaces that outlive Close.
func (l *Lab) watch() (watched []*Namespace, err error) {
	for _, n := range l.Namespaces() {
		h, err := netns.GetFromPath(n.Path())
		if err != nil {
			return nil, fmt.Errorf("lab: open %s: %w", n.Path(), err)
		}
		watched = append(watched, &Namespace{name: n.name, id: n.id, builtin: n.builtin, handle: h})
	}
	return watched, nil
}

// leftovers says what is left of a closed lab, and ends the watch.
func (l *Lab) leftovers(watched []*Namespace) (left []string) {
	for _, n := range watched {
		left = append(left, n.leftovers()...)
		_ = n.handle.Close() // only read
	}
	if _, err := os.Stat(leasePath(l.Name())); err == nil {
		left = append(left, "file "+leasePath(l.Name()))
	}
	return left
}

// leftovers looks for what may remain of a closed namespace.
func (n *Namespace) leftovers() (left []string) {
	if pids, err := processesIn(n.id); err != nil {
		left = append(left, err.Error())
	} else {
		for _, pid := range pids {
			left = append(left, commandOf(pid))
		}
	}
	if links, err := n.added(); err != nil {
		left = append(left, err.Error())
	} else {
		for _, name := range links {
			left = append(left, "link "+name)
		}
	}
	if _, err := os.Lstat(n.Path()); err == nil {
		left = append(left, "name "+n.Path())
	}
	return append(left, threadsIn(n.id)...)
}

// threadsIn lists this process's threads that are in the namespace.
func threadsIn(id string) (left []string) {
	tasks, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, t := range tasks {
		if is, err := os.Readlink(t); err == nil && is == id {
			left = append(left, "thread "+filepath.Base(filepath.Dir(filepath.Dir(t)))+" of this process")
		}
	}
	return left
}
