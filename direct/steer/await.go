package steer

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"junction/direct/afxdp"
)

// Await waits until every frame that a program on the NIC or on a VF had begun to
// deal with is in the queue that it goes to.
//
// Programs run in soft interrupts, which no task interrupts: a processor that
// executes this thread has finished with them. To execute on each for a moment
// takes far less time than what else waits for them, a grace period of RCU
// (afxdp.AwaitKernel), of which that is the reason too. Where it cannot be done,
// or soft interrupts are tasks, the grace period is waited for.
func Await() {
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this function
		done <- visitAll() == nil
	}()
	if !<-done {
		afxdp.AwaitKernel()
	}
}

var errRealTime = errors.New("soft interrupts are tasks of this kernel")

// visitAll executes on each processor.
func visitAll() error {
	if _, err := os.Stat("/sys/kernel/realtime"); err == nil {
		return errRealTime
	}
	n, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	for cpu := range n {
		var set unix.CPUSet
		set.Set(cpu)
		if !set.IsSet(cpu) {
			return fmt.Errorf("processor %d is beyond what a set holds", cpu)
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil && !offline(cpu) {
			return fmt.Errorf("execute on processor %d: %w", cpu, err)
		}
	}
	return nil
}

// offline tells whether a processor is known to execute nothing.
func offline(cpu int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", cpu))
	return errors.Is(err, os.ErrNotExist) && absent(cpu) || err == nil && strings.TrimSpace(string(b)) == "0"
}

// absent tells whether there is no such processor.
func absent(cpu int) bool {
	_, err := os.Stat(fmt.Sprintf("/sys/devices/system/cpu/cpu%d", cpu))
	return errors.Is(err, os.ErrNotExist)
}
