package lab

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// thread is an OS thread of its own that lives in a namespace and starts
// programs there. Programs inherit its network and mount namespaces, and get
// SIGKILL (PR_SET_PDEATHSIG) when it ends, which it does with this process at
// the latest.
type thread struct {
	calls chan func()
	ended chan struct{}
}

// newThread starts a thread, runs enter on it, and returns when that is done.
// The thread ends with stop and is never used for anything else, so enter may
// change what it likes.
func newThread(enter func() error) (*thread, error) {
	t := &thread{calls: make(chan func()), ended: make(chan struct{})}
	entered := make(chan error, 1)
	onSpareThread(func() {
		defer close(t.ended)
		err := enter()
		entered <- err
		if err != nil {
			return
		}
		for f := range t.calls {
			f()
		}
	})
	if err := <-entered; err != nil {
		<-t.ended
		return nil, err
	}
	return t, nil
}

// call runs f on the thread and returns when it has returned.
func (t *thread) call(f func()) {
	done := make(chan struct{})
	t.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

// stop ends the thread. No call may follow.
func (t *thread) stop() {
	close(t.calls)
	<-t.ended
}

// onSpareThread runs f on an OS thread that ends when f returns. The Go runtime
// cannot end the process's first thread, so that one is kept busy until another
// has been found.
func onSpareThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f() // still locked at the return: the runtime ends the thread
			return
		}
		found := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(found)
			f()
		}()
		<-found
		runtime.UnlockOSThread()
	}()
}
