package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Counts of what stress did.
var counts struct {
	calls, faults, signals, threads, execs, passes, sums, terms atomic.Int64
}

// stress is hard on whatever executes it, in the ways of Go's runtime: garbage
// collection all the time, preemption by signals, threads that come and go,
// faults that become panics. Each part checks itself. It runs for args[0] seconds.
func stress(args []string) error {
	if args[0] == "child" {
		fmt.Println(sum(1))
		return nil
	}
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	debug.SetGCPercent(5)
	terminations()
	stop := make(chan struct{})
	parts := []func() error{callKernel, callKernel, fault, signalOneself, lockThread, execute, garbage, garbage, addUp}
	errs := make(chan error, len(parts)+1)
	var wg sync.WaitGroup
	for _, part := range parts {
		wg.Go(func() { errs <- repeat(part, stop) })
	}
	wg.Go(func() { errs <- pass(stop) })
	ready()
	time.Sleep(time.Duration(seconds) * time.Second)
	fmt.Println("stopping")
	_, _ = io.Copy(io.Discard, os.Stdin)
	close(stop)
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	fmt.Printf("ok calls=%d faults=%d signals=%d threads=%d execs=%d passes=%d sums=%d terms=%d\n",
		counts.calls.Load(), counts.faults.Load(), counts.signals.Load(), counts.threads.Load(), counts.execs.Load(),
		counts.passes.Load(), counts.sums.Load(), counts.terms.Load())
	return err
}

// repeat calls f until stop is closed or f fails. An error ends the program:
// nothing else may go on as if all were well.
func repeat(f func() error, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
			if err := f(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
}

// terminations answers each SIGTERM.
func terminations() {
	c := make(chan os.Signal, 16)
	signal.Notify(c, unix.SIGTERM)
	go func() {
		for range c {
			fmt.Printf("term %d\n", counts.terms.Add(1))
		}
	}()
}

// callKernel makes system calls by each of Go's ways.
func callKernel() error {
	for range 100 {
		a, _, _ := syscall.Syscall(unix.SYS_GETPID, 0, 0, 0)
		b, _, _ := syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		c, _, _ := syscall.Syscall6(unix.SYS_GETPID, 1, 2, 3, 4, 5, 6)
		_, _, errno := syscall.Syscall(unix.SYS_CLOSE, ^uintptr(0), 0, 0)
		if pid := uintptr(os.Getpid()); a != pid || b != pid || c != pid || errno != unix.EBADF {
			return fmt.Errorf("getpid gave %d, %d, %d, not %d, and close %v", a, b, c, pid, errno)
		}
	}
	counts.calls.Add(400)
	return nil
}

// fault reads memory that may not be read: a fault that Go makes a panic of.
func fault() error {
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	for range 20 {
		if !panics(func() { mem[7]++ }) {
			return errors.New("memory without access was written")
		}
	}
	if err := unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return err
	}
	mem[7]++
	counts.faults.Add(21)
	return unix.Munmap(mem)
}

func panics(f func()) (did bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { did = recover() != nil }()
	f()
	return false
}

var ownSignals = sync.OnceValue(func() chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1)
	return c
})

// signalOneself expects each signal, sent one at a time.
func signalOneself() error {
	c := ownSignals()
	if err := unix.Kill(os.Getpid(), unix.SIGUSR1); err != nil {
		return err
	}
	select {
	case <-c:
		counts.signals.Add(1)
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("a signal was lost after %d", counts.signals.Load())
	}
}

// lockThread makes a thread that ends with its goroutine.
func lockThread() error {
	done := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends
		done <- unix.Gettid()
	}()
	if <-done == 0 {
		return errors.New("a thread without number")
	}
	counts.threads.Add(1)
	return nil
}

// execute runs this program as a child.
func execute() error {
	out, err := exec.Command(os.Args[0], "stress", "child").Output()
	if err != nil {
		return fmt.Errorf("a child: %w", err)
	}
	if want := fmt.Sprintln(sum(1)); string(out) != want {
		return fmt.Errorf("a child wrote %q, not %q", out, want)
	}
	counts.execs.Add(1)
	return nil
}

// garbage makes much of it, and looks at what must stay.
func garbage() error {
	keep := make(map[int][]byte)
	for i := range 2000 {
		keep[i%100] = bytes.Repeat([]byte{byte(i)}, 100+i%1000)
	}
	for i, b := range keep {
		if want := bytes.Repeat([]byte{byte(1900 + i)}, 100+(1900+i)%1000); !bytes.Equal(b, want) {
			return fmt.Errorf("memory of %d changed", i)
		}
	}
	return nil
}

// sum computes with integers, vectors and floating point.
func sum(n int) string {
	f, h := 0.0, sha256.New()
	for i := range 2000 {
		f += 1 / float64(i+n)
		fmt.Fprint(h, i*n, f)
	}
	return fmt.Sprintf("%x %v", h.Sum(nil), f)
}

var firstSum = sync.OnceValue(func() string { return sum(3) })

func addUp() error {
	if first, s := firstSum(), sum(3); s != first {
		return fmt.Errorf("a sum was %s, is %s", first, s)
	}
	counts.sums.Add(1)
	return nil
}

// pass sends a number through a ring of goroutines, a pipe among them.
func pass(stop <-chan struct{}) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	const links = 1000
	in := make(chan byte)
	out := in
	for range links {
		next := make(chan byte)
		go func(from, to chan byte) {
			for b := range from {
				to <- b + 1
			}
			close(to)
		}(out, next)
		out = next
	}
	var n byte
	err = repeat(func() error {
		in <- n
		if _, err := w.Write([]byte{<-out}); err != nil {
			return err
		}
		var got [1]byte
		if _, err := io.ReadFull(r, got[:]); err != nil {
			return err
		}
		if want := n + links%256; got[0] != want {
			return fmt.Errorf("%d came out of the ring, not %d", got[0], want)
		}
		n++
		counts.passes.Add(1)
		return nil
	}, stop)
	close(in)
	return errors.Join(err, w.Close())
}
