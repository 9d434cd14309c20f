package coresched

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEnclavesDoNotOverlap(t *testing.T) {
	m, err := NewMachine(4)
	require.NoError(t, err)
	_, err = m.NewEnclave(FirstCPUs(2), EnclaveOptions{})
	require.NoError(t, err)
	_, err = m.NewEnclave(FirstCPUs(3), EnclaveOptions{})
	require.ErrorIs(t, err, ErrCPU)
	_, err = m.NewEnclave(FirstCPUs(5), EnclaveOptions{})
	require.ErrorIs(t, err, ErrCPU)
	_, err = m.NewEnclave(CPUSet{}, EnclaveOptions{})
	require.ErrorIs(t, err, ErrCPU)
	for _, n := range []int{0, -1, MaxCPUs + 1} {
		_, err := NewMachine(n)
		require.ErrorIs(t, err, ErrCPU)
	}
}

// An overflow is told, fails what was decided without knowing, and ends with a
// rescan.
func TestOverflow(t *testing.T) {
	m, err := NewMachine(1)
	require.NoError(t, err)
	e, err := m.NewEnclave(FirstCPUs(1), EnclaveOptions{QueueLen: 4})
	require.NoError(t, err)
	require.NoError(t, e.Attach(0, false))
	require.Empty(t, e.Rescan(0, nil))
	for range 9 {
		_, err := e.Enter(0, true, Hints{})
		require.NoError(t, err)
	}
	_, err = e.Receive(NoCPU, make([]Message, 8))
	require.ErrorIs(t, err, ErrOverflow)
	require.EqualValues(t, 5, e.Counts().Lost)
	txn := []Txn{{CPU: 0, Task: 1, TaskSeq: 1}}
	require.Zero(t, e.Commit(0, NoCPU, txn))
	require.Equal(t, AgentStale, txn[0].Result)
	require.Len(t, e.Rescan(0, nil), 9)
	require.Equal(t, 1, e.Commit(0, NoCPU, txn))
}

func TestAccountsOfCores(t *testing.T) {
	m, err := NewMachine(1)
	require.NoError(t, err)
	e, err := m.NewEnclave(FirstCPUs(1), EnclaveOptions{})
	require.NoError(t, err)
	require.NoError(t, e.Attach(0, false))
	e.Rescan(0, nil)
	task, err := e.Enter(10, true, Hints{})
	require.NoError(t, err)
	require.Equal(t, 1, e.Commit(20, NoCPU, []Txn{{CPU: 0, Task: task, TaskSeq: 1}}))
	require.Equal(t, Time(5), e.Status(25, task).Runtime)
	require.NoError(t, e.Yield(30, task))
	require.Equal(t, Time(10), e.Status(99, task).Runtime)
	require.Equal(t, Time(10+7), e.Waited(37, task))
	require.Equal(t, 1, e.Commit(40, NoCPU, []Txn{{CPU: 0, Task: task, TaskSeq: 2}}))
	require.Equal(t, Time(20), e.Waited(50, task), "it has a core")
	require.NoError(t, e.Preempt(60, task))
	e.Detach(65)
	require.Equal(t, Time(25), e.Waited(99, task), "nobody is to blame")
	require.NoError(t, e.Attach(100, false))
	require.NoError(t, e.Block(103, task))
	require.Equal(t, Time(28), e.Waited(999, task))
}

// A task that says how long its work has waited is not the policy's fault.
func TestWakeupSince(t *testing.T) {
	const timeout = 100
	m, err := NewMachine(1)
	require.NoError(t, err)
	e, err := m.NewEnclave(FirstCPUs(1), EnclaveOptions{RunnableTimeout: timeout})
	require.NoError(t, err)
	require.NoError(t, e.Attach(0, false))
	e.Rescan(0, nil)
	task, err := e.Enter(0, false, Hints{})
	require.NoError(t, err)
	require.NoError(t, e.WakeupSince(1000, 1000-2*timeout, task))
	_, stalled := e.Stalled(1000 + timeout)
	require.False(t, stalled)
	_, stalled = e.Stalled(1000 + timeout + 1)
	require.True(t, stalled)
	buf := make([]Message, 4)
	n, err := e.Receive(NoCPU, buf)
	require.NoError(t, err)
	require.Equal(t, TaskWakeup, buf[n-1].Type)
	require.Equal(t, Time(1000-2*timeout), buf[n-1].At, "but the policy is told")
}

// A task that no core can be used for is not the policy's fault, nor is one for
// which there has been one only lately.
func TestStalledWithoutCores(t *testing.T) {
	const timeout = 100
	m, err := NewMachine(2)
	require.NoError(t, err)
	e, err := m.NewEnclave(FirstCPUs(2), EnclaveOptions{RunnableTimeout: timeout})
	require.NoError(t, err)
	require.NoError(t, e.Attach(0, false))
	task, err := e.Enter(0, true, Hints{})
	require.NoError(t, err)
	require.NoError(t, e.SetAffinity(0, task, FirstCPUs(1)))
	require.NoError(t, m.SetCPU(10, 0, false, false))
	_, stalled := e.Stalled(1000)
	require.False(t, stalled, "its core is offline")
	require.NoError(t, m.SetCPU(1000, 0, true, false))
	_, stalled = e.Stalled(1000 + timeout)
	require.False(t, stalled)
	_, stalled = e.Stalled(1000 + timeout + 1)
	require.True(t, stalled)
}
