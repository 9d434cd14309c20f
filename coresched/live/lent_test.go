package live

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	cs "junction/coresched"
	"junction/coresched/instance"
)

// lender is an actuator without a machine, and an enclave with instances of one
// kthread each that have no processes.
func lender(classes ...cs.Class) (a *Actuator, n *enclave, all []*inst) {
	n = &enclave{name: "e", borrowers: map[*inst]struct{}{}}
	a = &Actuator{instances: instances{all: map[*inst]struct{}{}, kthreads: map[cs.Task]*kthread{}}}
	for _, class := range classes {
		i := &inst{InstanceOptions: InstanceOptions{Kthreads: 1, Class: class}, enclave: n}
		i.kthreads = []*kthread{{inst: i, cpu: cs.NoCPU}}
		a.instances.all[i] = struct{}{}
		all = append(all, i)
	}
	return a, n, all
}

// TestLent: what is lent is what latency-critical instances have, whatever happens,
// and all whom a change concerns are looked at.
func TestLent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, n, all := lender(rapid.SliceOfN(rapid.SampledFrom([]cs.Class{cs.LatencyCritical, cs.BestEffort}), 1, 8).Draw(t, "classes")...)
		lent := func() (cores int) {
			for _, i := range all {
				if _, has := i.cores(); i.Class == cs.LatencyCritical {
					cores += has
				}
			}
			return cores
		}
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			i, before := rapid.SampledFrom(all).Draw(t, "instance"), lent()
			if rapid.Bool().Draw(t, "wants") {
				i.wants(rapid.IntRange(0, 1).Draw(t, "kthreads"))
			} else {
				kind := rapid.SampledFrom([]cs.ActionKind{cs.Adopt, cs.Run, cs.Stop, cs.Release}).Draw(t, "kind")
				a.carryKthread(i.kthreads[0], cs.Action{Kind: kind, CPU: cs.CPU(rapid.IntRange(0, 3).Draw(t, "core"))})
				if !i.touched {
					t.Fatal("an instance is not told what happened to it")
				}
			}
			if n.lent != lent() {
				t.Fatalf("%d cores are lent, not %d", n.lent, lent())
			}
			for _, o := range all {
				if o.Class == cs.BestEffort && o.want > 0 && before != n.lent && !o.touched {
					t.Fatal("a borrower is not told that another number of cores is lent")
				}
			}
			for _, o := range a.instances.touched {
				o.touched = false
			}
			a.instances.touched = a.instances.touched[:0]
		}
	})
}

// BenchmarkIdleNeighbours is what it takes to have an instance get a core and leave
// it, among others that have nothing to do: they cost nothing.
func BenchmarkIdleNeighbours(b *testing.B) {
	for _, idle := range []int{0, 100, 1000} {
		b.Run(strconv.Itoa(idle), func(b *testing.B) {
			classes := make([]cs.Class, idle+1)
			for i := range classes {
				classes[i] = cs.Class(i % 2)
			}
			a, _, all := lender(classes...)
			g, _, err := instance.NewGiver(1)
			require.NoError(b, err)
			i := all[0]
			i.giver, i.granted, i.timer = g, 1, time.NewTimer(time.Hour)
			k := i.kthreads[0]
			b.Cleanup(func() { require.NoError(b, g.Close()) })
			b.ReportAllocs()
			for b.Loop() {
				a.carryKthread(k, cs.Action{Kind: cs.Run})
				a.publish()
				a.carryKthread(k, cs.Action{Kind: cs.Stop})
				a.publish()
			}
		})
	}
}
