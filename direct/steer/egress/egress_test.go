package egress

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzByVF: whatever a program sends, the decision is made, and what may not leave
// from a dedicated address may not from a shared one. What is right is tested
// against the kernel's program in package steer.
func FuzzByVF(f *testing.F) {
	f.Add(append(make([]byte, 12), 0x08, 0x00, 0x45))
	f.Add(append(make([]byte, 12), 0x86, 0xdd, 0x60))
	f.Fuzz(func(t *testing.T, head []byte) {
		mac := [6]byte{2}
		if ByVF(head, mac, true) {
			require.True(t, ByVF(head, mac, false))
		}
	})
}

func TestByVFAllocatesNothing(t *testing.T) {
	head := append(make([]byte, 12), 0x08, 0x00, 0x45)
	head = append(head, make([]byte, 40)...)
	require.Zero(t, testing.AllocsPerRun(100, func() { ByVF(head, [6]byte{2}, true) }))
}
